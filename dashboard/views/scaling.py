"""Scaling with images, groups and labels, and the effect of single settings."""

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
    """Draw the page."""
    st.title("Size, diversity, labels")
    st.caption("The filters for backbone and source do not apply here. Curves over images and groups use all labels.")
    axis = st.selectbox(
        "Axis", list(scaling.AXES), format_func=scaling.AXES.__getitem__, key="axis", bind="query-params"
    )
    bases = Counter(str(scaling.SUBSET.fullmatch(name)["base"]) for name in chosen.every["source"].unique())  # type: ignore[index]
    most = [name for name, _ in bases.most_common()]  # the source with most sizes first
    source = choice("Source", most, "source") or most[0]
    try:
        data = scaling.points(chosen.every, axis, source, chosen.metric)
    except UnanswerableError as error:
        st.info(plain(str(error)))
    else:
        _curves(chosen, axis, source, data)
    _settings(chosen, source)


def _curves(chosen: Chosen, axis: str, source: str, data: dict[str, dict[float, tuple[float, ...]]]) -> None:
    curves = {name: scaling.curve(by, np.random.default_rng(0)) for name, by in data.items()}
    figure(charts.scaling_chart(curves, scaling.AXES[axis], METRICS[chosen.metric], source), "scaling")
    for name, curve in curves.items():
        st.markdown(f"**{plain(name)}**: {plain(f'{curve.verdict}, {curve.why}')}")
    rows = scaling.sizes_frame(curves, scaling.without_pretraining(chosen.every, axis, source, chosen.metric))
    table(rows, "scaling")
    if "labels" in rows:
        st.caption("Labels: the share of labels at which training without pretraining reaches the same score.")


def _settings(chosen: Chosen, source: str) -> None:
    """Draw a comparison of `source` with each of its variants `source/...`."""
    data = samples(chosen.whole, chosen.metric, chosen.whole_cells)
    for name, about in data.about.items():
        if name == source or name.startswith(f"{source}/"):
            st.caption(plain(f"{about}."))
    rows = []
    for name in sorted(data.scores):
        if name.startswith(f"{source}/") and "~" not in name and (pairs := data.pair(name, source)):
            difference = stats.difference(pairs)
            row = {
                "setting": name.removeprefix(f"{source}/"),
                "difference": difference.effect,
                "low": difference.low,
                "high": difference.high,
            }
            rows.append(row | {"p, unadjusted": difference.p, "backbones": len(pairs), "note": difference.why_not})
    if rows:
        st.subheader("Effect of single settings")
        st.caption(plain(f"Difference from {source}, pooled over backbones."))
        table(pd.DataFrame(rows), "settings")
