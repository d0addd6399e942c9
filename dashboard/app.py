"""The frame of every page: reads the store, names the filters, shows the page that was chosen. `bench dashboard` serves it."""

from pathlib import Path

import streamlit as st

from dashboard import filters, store_cache
from dashboard.views import PAGES
from dashboard.widgets import board_notes, lines, plain
from results.escape import without_paths


def main() -> None:
    """One rerun of the page."""
    st.set_page_config(page_title="satir-bench", layout="wide")
    try:
        found = store_cache.read()
    except store_cache.NothingToShowError as error:
        st.error(plain(without_paths(str(error), Path())))
        return
    page = st.segmented_control(
        "Page",
        list(PAGES),
        default="Leaderboard",
        required=True,
        key="page",
        bind="query-params",
        label_visibility="collapsed",
    )
    for note in found.notes:
        st.info(plain(without_paths(note, found.store.root)))
    if found.unreadable:
        with st.expander(f"{len(found.unreadable)} records or submissions are left out"):
            lines(without_paths(text, found.store.root) for text in found.unreadable)
    if found.cells.empty:
        st.info("No runs in this store yet: `bench run --matrix demo` makes some. They appear here by themselves.")
    else:
        chosen = filters.choose(found)
        board_notes(chosen.whole.iloc[0])
        PAGES[page](chosen)
    store_cache.watch(found)


main()
