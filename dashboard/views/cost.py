"""Score against cost: which cells no other cell beats in both."""

import streamlit as st

from dashboard.filters import Chosen
from dashboard.widgets import figure, lines, plain, table
from results import charts, pareto
from results.cell_cost import COSTS, DOCS, devices_note, with_costs
from results.marks import marks
from results.replicate_scores import METRICS


def show(chosen: Chosen) -> None:
    """Draw the page."""
    st.title("Score against cost")
    if chosen.cells.empty:
        st.info("No cells match these filters.")
        return
    axes = list(pareto.AXES)
    cost = st.selectbox("Cost", axes, format_func=pareto.AXES.__getitem__, key="cost", bind="query-params")
    cells = with_costs(chosen.cells, chosen.runs)
    found = pareto.pareto(cells, chosen.runs, cost, chosen.metric)
    if found.rows.empty:
        st.info("No cell here has both a comparable score and a measured cost: older runs were not measured.")
    else:
        figure(charts.pareto_chart(found.rows, pareto.AXES[cost], METRICS[chosen.metric]), "cost")
        st.caption(plain(pareto.FRONT_NOTE))
    if found.left_out:
        st.caption("Not drawn:")
        lines(found.left_out)
    rows = cells[["source", "backbone", chosen.metric, *COSTS]]
    marked = [" · ".join([str(cell["source"]), *marks(cell)]) for cell in cells.to_dict("records")]
    table(rows.assign(source=marked), "costs", COSTS, download=rows)
    if note := devices_note(chosen.runs):
        st.caption(plain(f"{note}."))
    st.caption(plain(*(f"{title}: {DOCS[name]}." for name, title in COSTS.items())))
