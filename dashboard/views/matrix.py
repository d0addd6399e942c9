"""Overview of source x backbone, including failed and skipped cells with their reasons."""

import streamlit as st

from dashboard.filters import Chosen
from dashboard.widgets import figure, table
from results import charts
from results.replicate_scores import METRICS


def show(chosen: Chosen) -> None:
    """Draw the page."""
    st.title("Source × backbone")
    if chosen.cells.empty:
        st.info("No cells match these filters.")
        return
    figure(charts.matrix_chart(chosen.cells, chosen.metric, METRICS[chosen.metric]), "matrix")
    st.caption("Coloured cells are complete, and their source is not marked as a leak.")
    st.caption("Hover over a cell for its interval, number of replicates, and the reason for a missing score.")
    interval = [f"{chosen.metric}_low", f"{chosen.metric}_high"]
    columns = [
        "source",
        "backbone",
        chosen.metric,
        *interval,
        "n",
        "status",
        "reason",
        "leak",
        "touched",
        "says_touched",
        "badge",
    ]
    table(chosen.cells[columns], "matrix", {"badge": "submitted"})
