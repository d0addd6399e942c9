"""Source x backbone at a glance; what failed or was skipped is there, with its reason."""

import streamlit as st

from dashboard.filters import Chosen
from dashboard.widgets import figure, table
from results import charts
from results.replicate_scores import METRICS


def show(chosen: Chosen) -> None:
    """The page."""
    st.title("Source × backbone")
    if chosen.cells.empty:
        st.info("No cell is left by these filters.")
        return
    figure(charts.matrix_chart(chosen.cells, chosen.metric, METRICS[chosen.metric]), "matrix")
    st.caption("A colour: all replicates are there, and the source has seen nothing of the test.")
    st.caption("Hover: interval over replicates, how many there are, and why a cell has no number.")
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
