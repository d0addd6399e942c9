"""How scores grow with images, with their groups and with labels, and what single settings of SAM change."""

from collections import Counter

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.filters import Chosen
from dashboard.widgets import choice, figure, plain, table
from results import charts, scaling, stats
from results.board_choice import UnanswerableError
from results.replicate_scores import METRICS, samples


def show(chosen: Chosen) -> None:
    """The page."""
    st.title("Size, diversity, labels")
    st.caption("All backbones and sources, whatever the filters beside; images and groups at all of the labels.")
    axis = st.selectbox(
        "Axis", list(scaling.AXES), format_func=scaling.AXES.__getitem__, key="axis", bind="query-params"
    )
    bases = Counter(str(scaling.SUBSET.fullmatch(name)["base"]) for name in chosen.every["source"].unique())  # type: ignore[index]
    most = [name for name, _ in bases.most_common()]  # the one with most sizes first
    source = choice("Source", most, "source") or most[0]
    try:
        found = scaling.points(chosen.every, axis, source, chosen.metric)
    except UnanswerableError as error:
        st.info(plain(str(error)))
    else:
        _curves(chosen, axis, source, found)
    _settings(chosen, source)


def _curves(chosen: Chosen, axis: str, source: str, found: dict[str, dict[float, tuple[float, ...]]]) -> None:
    curves = {name: scaling.curve(by, np.random.default_rng(0)) for name, by in found.items()}
    figure(charts.scaling_chart(curves, scaling.AXES[axis], METRICS[chosen.metric], source), "scaling")
    for name, told in curves.items():
        st.markdown(f"**{plain(name)}**: {plain(f'{told.verdict}, {told.why}')}")
    rows = scaling.sizes_frame(curves, scaling.without_pretraining(chosen.every, axis, source, chosen.metric))
    table(rows, "scaling")
    if "labels" in rows:
        st.caption("Labels: the share of the labels with which no pretraining reaches that score.")


def _settings(chosen: Chosen, source: str) -> None:
    """Every source that is `source` with something after a slash, against it."""
    found = samples(chosen.whole, chosen.metric, chosen.whole_cells)
    for name, about in found.about.items():
        if name == source or name.startswith(f"{source}/"):
            st.caption(plain(f"{about}."))
    rows = []
    for name in sorted(found.scores):
        if name.startswith(f"{source}/") and "~" not in name and (pairs := found.pair(name, source)):
            told = stats.difference(pairs)
            row = {
                "setting": name.removeprefix(f"{source}/"),
                "difference": told.effect,
                "low": told.low,
                "high": told.high,
            }
            rows.append(row | {"p, unadjusted": told.p, "backbones": len(pairs), "note": told.why_not})
    if rows:
        st.subheader("One setting changed")
        st.caption(plain(f"Against {source}, pooled over backbones."))
        table(pd.DataFrame(rows), "settings")
