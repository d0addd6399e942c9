"""Streamlit entry point: read the store, draw the filters and the chosen page. Served by `bench dashboard`."""

from pathlib import Path

import streamlit as st

from dashboard import filters, store_cache
from dashboard.views import PAGES
from dashboard.widgets import board_notes, lines, plain
from results.escape import without_paths


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title="satir-bench", layout="wide")
    try:
        contents = store_cache.read()
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
    for note in contents.notes:
        st.info(plain(without_paths(note, contents.store.root)))
    if contents.unreadable:
        with st.expander(f"{len(contents.unreadable)} records or submissions were left out"):
            lines(without_paths(text, contents.store.root) for text in contents.unreadable)
    if contents.cells.empty:
        st.info(
            "This store has no runs yet. Start some with `bench run --matrix demo`; this page updates automatically."
        )
    else:
        chosen = filters.choose(contents)
        board_notes(chosen.whole.iloc[0])
        PAGES[page](chosen)
    store_cache.watch(contents)


main()
