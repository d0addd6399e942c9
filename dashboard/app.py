"""The frame of every page: reads the store, names the filters, shows the page that was chosen. `bench dashboard` serves it."""

import streamlit as st

from dashboard import filters, reading
from dashboard.parts import board_notes, plain
from dashboard.views import PAGES


def main() -> None:
    """One rerun of the page."""
    st.set_page_config(page_title="satir-bench", layout="wide")
    try:
        found = reading.read()
    except reading.NothingToShow as error:
        st.error(plain(str(error)))
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
        st.info(plain(note))
    if found.unreadable:
        with st.expander(f"{len(found.unreadable)} records or submissions are left out"):
            st.text("\n".join(found.unreadable))
    if found.cells.empty:
        st.info("No runs in this store yet: `bench run --matrix demo` makes some. They appear here by themselves.")
    else:
        chosen = filters.choose(found)
        board_notes(chosen.whole.iloc[0])
        PAGES[page](chosen)
    reading.watch(found)


main()
