"""Pictures of results, with Altair; written as PNG or SVG without a browser."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from bench import BenchError
from results import stats
from results.compare import Samples
from results.scaling import Curve

KINDS = (".png", ".svg")
Chart = alt.Chart | alt.LayerChart | alt.FacetChart


def scaling_chart(curves: Mapping[str, Curve], axis: str, metric: str, source: str) -> Chart:
    """Means with their intervals over a logarithmic size, the fitted curves and their bands; a colour a backbone."""
    dots, bands = [], []
    for name, told in curves.items():
        for size in told.sizes:
            interval = stats.t_interval(told.scores[size])
            mean = stats.mean(told.scores[size])
            dots.append({"backbone": name, "size": size, "score": mean, "low": interval.low, "high": interval.high})
        if told.at is not None and told.fit is not None and told.low is not None and told.high is not None:
            columns = {"size": told.at, "score": told.fit, "low": told.low, "high": told.high}
            bands.append(pd.DataFrame(columns | {"beyond": told.at > told.sizes[-1]}).assign(backbone=name))
    x = alt.X("size:Q", scale=alt.Scale(type="log", nice=False), title=axis)
    colour = alt.Color("backbone:N")
    base = alt.Chart(pd.DataFrame(dots)).encode(x=x, color=colour)
    y = alt.Y("score:Q", title=metric, scale=alt.Scale(zero=False))
    layers = [base.mark_point(filled=True, size=50).encode(y=y), base.mark_rule().encode(y="low:Q", y2="high:Q")]
    if bands:
        fitted = alt.Chart(pd.concat(bands)).encode(x=x, color=colour)
        layers = [
            fitted.mark_area(opacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q"),
            fitted.mark_line().encode(y=y, strokeDash=alt.StrokeDash("beyond:N", title="extrapolated")),
            *layers,
        ]
    return _together(layers, title=source, width=560, height=340)


def write_chart(chart: Chart, path: Path) -> None:
    """Writes a chart as PNG or SVG.

    Raises:
        BenchError: another ending, or the folder cannot be written.
    """
    if path.suffix not in KINDS:
        raise BenchError(f"{path}: a picture ends with {' or '.join(KINDS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        chart.save(str(path), scale_factor=2)
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}") from error


def svg(chart: Chart) -> str:
    """The chart as an <svg> element."""
    text = io.StringIO()
    chart.save(text, format="svg")
    return text.getvalue()


def tiers_chart(found: Samples, metric: str) -> Chart:
    """The mean of each source on each backbone, with its interval over replicates."""
    rows = []
    for source, by in found.scores.items():
        for backbone, scores in by.items():
            interval = stats.t_interval(scores)
            ends = {"low": interval.low, "high": interval.high}
            rows.append({"source": source, "backbone": backbone, "score": stats.mean(scores), **ends})
    y = alt.Y("source:N", sort=alt.EncodingSortField("score", "mean", order="descending"), title=None)
    base = alt.Chart(pd.DataFrame(rows)).encode(y=y, color="backbone:N", yOffset="backbone:N")
    x = alt.X("score:Q", title=metric, scale=alt.Scale(zero=False))
    layers = (base.mark_rule().encode(x="low:Q", x2="high:Q"), base.mark_point(filled=True).encode(x=x))
    return _together(layers, width=560)


def _together(layers: Iterable[alt.Chart], **properties: Any) -> Chart:  # noqa: ANN401
    """One chart of several layers. Names are never cut."""
    chart: Chart = alt.layer(*layers).properties(**properties)
    whole: Chart = chart.configure_axis(labelLimit=0).configure_legend(labelLimit=0)
    return whole
