"""Altair charts of results, exported as PNG or SVG without a browser."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from results import stats
from results.board_choice import UnanswerableError
from results.compare import INTERVALS, POOLED
from results.escape import cells, for_terminal
from results.marks import leak_mark
from results.replicate_scores import Samples
from results.scaling import Curve

KINDS = (".png", ".svg")
Pixels = NDArray[np.uint8]
SAFE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C8C", "#B8A500"]  # Okabe and Ito (2008)
ALIGNED = alt.Axis(minExtent=44)  # px for the labels of a y axis, so that charts above each other have one x axis
MOST_POINTS = 100  # of a training loss that are drawn
LEGEND = 80  # characters shown of a class name
Chart = alt.Chart | alt.LayerChart | alt.FacetChart


def scaling_chart(curves: Mapping[str, Curve], axis: str, metric: str, source: str) -> Chart:
    """Plot means with intervals over a logarithmic size, with fitted curves and bands; one colour per backbone."""
    dots, bands = [], []
    for name, curve in curves.items():
        for size in curve.sizes:
            interval = stats.t_interval(curve.scores[size])
            mean = stats.mean(curve.scores[size])
            dots.append({"backbone": name, "size": size, "score": mean, "low": interval.low, "high": interval.high})
        if curve.at is not None and curve.fit is not None and curve.low is not None and curve.high is not None:
            columns = {"size": curve.at, "score": curve.fit, "low": curve.low, "high": curve.high}
            bands.append(pd.DataFrame(columns | {"beyond": curve.at > curve.sizes[-1]}).assign(backbone=name))
    x = alt.X("size:Q", scale=alt.Scale(type="log", nice=False), title=axis)
    colour = alt.Color("backbone:N", scale=alt.Scale(range=SAFE))
    base = alt.Chart(_shown(pd.DataFrame(dots))).encode(x=x, color=colour)
    y = alt.Y("score:Q", title=metric, scale=alt.Scale(zero=False))
    layers = [
        base.mark_point(filled=True, size=50, opacity=1).encode(y=y),
        base.mark_rule().encode(y="low:Q", y2="high:Q"),
    ]
    if bands:
        fitted = alt.Chart(_shown(pd.concat(bands))).encode(x=x, color=colour)
        layers = [
            fitted.mark_area(opacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q"),
            fitted.mark_line().encode(y=y, strokeDash=alt.StrokeDash("beyond:N", title="extrapolated")),
            *layers,
        ]
    return _together(layers, title=for_terminal(source), width=560, height=340)


def write_chart(chart: Chart, path: Path) -> None:
    """Write a chart as PNG or SVG.

    Raises:
        UnanswerableError: unknown file extension, or the file cannot be written.
    """
    if path.suffix not in KINDS:
        raise UnanswerableError(f"{path}: unknown picture format; use {' or '.join(KINDS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        chart.save(str(path), scale_factor=2)
    except OSError as error:
        raise UnanswerableError(f"cannot write {path}: {error.strerror}") from error


def svg(chart: Chart) -> str:
    """Return the chart as an <svg> element."""
    return as_bytes(chart, "svg").decode()


def as_bytes(chart: Chart, kind: str) -> bytes:
    """Return the chart as the bytes of a file. kind: png or svg."""
    if kind == "svg":
        text = io.StringIO()
        chart.save(text, format="svg")
        return text.getvalue().encode()
    file = io.BytesIO()
    chart.save(file, format="png", scale_factor=2)
    return file.getvalue()


def tiers_chart(data: Samples, metric: str, order: Iterable[str]) -> Chart:
    """Plot the mean of each source on each backbone, with its interval over replicates. order: of the sources, from the top."""
    rows = []
    for source, by in data.scores.items():
        for backbone, scores in by.items():
            interval = stats.t_interval(scores)
            ends = {"low": interval.low, "high": interval.high}
            rows.append({"source": source, "backbone": backbone, "score": stats.mean(scores), **ends})
    y = alt.Y("source:N", sort=[for_terminal(source) for source in order], title=None)
    base = alt.Chart(_shown(pd.DataFrame(rows))).encode(
        y=y, color=alt.Color("backbone:N", scale=alt.Scale(range=SAFE)), yOffset="backbone:N"
    )
    x = alt.X("score:Q", title=metric, scale=alt.Scale(zero=False))
    layers = (base.mark_rule().encode(x="low:Q", x2="high:Q"), base.mark_point(filled=True, opacity=1).encode(x=x))
    return _together(layers, width=560)


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Escape the text of rows for a figure and its tooltips."""
    return cells(rows, for_terminal)


def _together(layers: Iterable[alt.Chart], **properties: Any) -> Chart:  # noqa: ANN401
    """Layer charts into one. Labels are never truncated."""
    chart: Chart = alt.layer(*layers).properties(**properties)
    whole: Chart = chart.configure_axis(labelLimit=0).configure_legend(labelLimit=0)
    return whole


def matrix_chart(board: pd.DataFrame, metric: str, title: str) -> Chart:
    """Plot source x backbone; cells without a score show their status. board: rows of one board from `results.board.board`."""
    rows = board.loc[board["status"] != "stale", ["source", "backbone", metric, "n", "status", "reason", "leak"]].copy()
    rows = rows.assign(low=board[f"{metric}_low"], high=board[f"{metric}_high"]).rename(columns={metric: "value"})
    clean = (rows["status"] == "ok") & rows["leak"].isna()
    rows["score"] = rows["value"].astype("float64").where(clean)  # only these are coloured and sorted
    marks = [
        "" if good else leak_mark(leak) if pd.notna(leak) else s
        for good, leak, s in zip(clean, rows["leak"], rows["status"], strict=True)
    ]
    rows["text"] = [f"{v:.3f} {m}".strip() if pd.notna(v) else m for v, m in zip(rows["value"], marks, strict=True)]
    tips: list[str | alt.Tooltip] = [f"{name}:N" for name in ("source", "backbone", "status", "reason", "leak", "n")]
    tips += [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("value", "low", "high")]
    best = alt.EncodingSortField("score", "max", order="descending")
    x = alt.X("backbone:N", title=None, axis=alt.Axis(labelAngle=-20))
    base = alt.Chart(_shown(rows)).encode(x=x, y=alt.Y("source:N", sort=best, title=None), tooltip=tips)
    colour = alt.Color("score:Q", title=title, scale=alt.Scale(scheme="cividis"))
    fill = alt.when("isValid(datum.score)").then(colour).otherwise(alt.value("#8883"))
    middle = (rows["score"].min() + rows["score"].max()) / 2 if clean.any() else 0.0
    bright = alt.when(f"isValid(datum.score) && datum.score > {middle}").then(alt.value("black"))
    ink = bright.when("isValid(datum.score)").then(alt.value("white")).otherwise(alt.value("#888"))
    layers = (base.mark_rect(stroke="#8884").encode(color=fill), base.mark_text().encode(text="text:N", color=ink))
    return _together(layers, width=alt.Step(150), height=alt.Step(34))


def pareto_chart(rows: pd.DataFrame, cost: str, metric: str) -> Chart:
    """Plot score over cost with intervals over replicates, and a line through the front. rows: of `results.pareto.pareto`."""
    low, high = float(rows["cost"].min()), float(rows["cost"].max())
    wide = low > 0 and high > 10 * low
    scale = alt.Scale(type="log" if wide else "linear", nice=False, domain=[0.9 * low, 1.1 * high])
    x = alt.X("cost:Q", title=cost, scale=scale, axis=alt.Axis(format="~g"))
    y = alt.Y("score:Q", title=metric, scale=alt.Scale(zero=False))
    tips: list[str | alt.Tooltip] = ["source:N", "backbone:N", alt.Tooltip("cost:Q", title=cost, format=".4g")]
    tips += [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("score", "low", "high")]
    shown = _shown(rows)
    base = alt.Chart(shown).encode(x=x, color=alt.Color("source:N", scale=alt.Scale(range=SAFE)))
    front = shown[shown["front"]]
    line = alt.Chart(front).mark_line(interpolate="step-after", strokeDash=[4, 4], color="#888").encode(x=x, y=y)
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(y=y, tooltip=tips)
    dots = dots.encode(shape="backbone:N") if shown["backbone"].nunique() > 1 else dots
    layers = [line, base.mark_rule().encode(y="low:Q", y2="high:Q"), dots]
    right = front["cost"] > (np.sqrt(low * high) if wide else (low + high) / 2)
    sides: tuple[tuple[pd.DataFrame, Literal["left", "right"], int], ...]
    sides = (front[~right], "left", 8), (front[right], "right", -8)
    for named, align, dx in sides:  # names stay within the figure
        text = alt.Chart(named).mark_text(align=align, dx=dx, dy=-7, color="#888")
        layers += [text.encode(x=x, y=y, text="source:N")] if len(named) else []
    return _together(layers, width=560, height=340)


def forest_chart(rows: pd.DataFrame, a: str, b: str, metric: str) -> Chart:
    """Plot the effect on each backbone with its three intervals. rows: from `results.compare.compare`."""
    parts = [
        rows[["backbone", "effect"]].assign(over=kind, low=rows[f"{kind}_low"], high=rows[f"{kind}_high"])
        for kind in INTERVALS
    ]
    whole = _shown(pd.concat(parts).dropna(subset="low") if rows["low"].notna().any() else parts[0])
    kinds = [kind for kind in INTERVALS if kind in set(whole["over"])]
    base = alt.Chart(whole).encode(
        y=alt.Y("backbone:N", sort=list(dict.fromkeys(whole["backbone"])), title=None),
        yOffset=alt.YOffset("over:N", sort=kinds),
        color=alt.Color("over:N", sort=kinds, scale=alt.Scale(domain=kinds, range=SAFE), title="95 % over"),
    )
    x = alt.X("effect:Q", title=for_terminal(f"{metric}: {a} - {b}"))
    tips = ["backbone:N", "over:N", *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("effect", "low", "high"))]
    zero = alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(strokeDash=[4, 4], color="#888").encode(x="zero:Q")
    pooled = alt.when(alt.datum.backbone == POOLED).then(alt.value("diamond")).otherwise(alt.value("circle"))
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x=x, shape=pooled, tooltip=tips)
    return _together((zero, base.mark_rule().encode(x="low:Q", x2="high:Q"), dots), width=560)


def history_chart(history: pd.DataFrame) -> Chart:
    """Plot the training loss and its rolling mean over a twentieth of the steps, at most at MOST_POINTS steps.

    history: step, loss, and maybe others.
    """
    smooth = history.assign(mean=history["loss"].rolling(max(1, len(history) // 20), min_periods=1).mean())
    every = max(1, math.ceil(len(smooth) / MOST_POINTS))
    thin = smooth.iloc[::-every].iloc[::-1]  # the last step is among them
    base = alt.Chart(thin[["step", "loss", "mean"]]).encode(x=_steps(history))
    y = alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=False), axis=ALIGNED)
    layers = (base.mark_line(opacity=0.25, color=SAFE[0]).encode(y=y), base.mark_line(color=SAFE[0]).encode(y="mean:Q"))
    return _together(layers, width=560, height=220)


def val_chart(history: pd.DataFrame) -> Chart:
    """Plot the points of the val curve over the steps of `history_chart`. history: step, val_miou (NaN between the points)."""
    points = history.loc[history["val_miou"].notna(), ["step", "val_miou"]]
    y = alt.Y("val_miou:Q", title="mIoU on val", scale=alt.Scale(zero=False), axis=ALIGNED)
    tips: list[str | alt.Tooltip] = ["step:Q", alt.Tooltip("val_miou:Q", title="mIoU on val", format=".4f")]
    base = alt.Chart(points).encode(x=_steps(history), y=y, tooltip=tips)
    return _together(
        (base.mark_line(color=SAFE[2]), base.mark_point(filled=True, size=50, color=SAFE[2])), width=560, height=220
    )


def _steps(history: pd.DataFrame) -> alt.X:
    """Return the axis that charts of one training share."""
    limits = [int(history["step"].min()), int(history["step"].max())]
    return alt.X("step:Q", title="step", scale=alt.Scale(domain=limits, nice=False), axis=alt.Axis(tickCount=10))


def importance_chart(shares: "pd.Series[float]") -> Chart:
    """Plot the share of the variation in validation mIoU that each setting explains. shares: setting -> share."""
    rows = _shown(shares.rename_axis("setting").rename("share").reset_index())
    base = alt.Chart(rows).mark_bar(color=SAFE[0])
    return _together(
        [base.encode(x=alt.X("share:Q", axis=alt.Axis(format="%")), y=alt.Y("setting:N", sort="-x"))], width=560
    )


def class_colours(classes: int) -> Pixels:
    """Return (K, 3) colours for classes, safe for colour-blind readers; class 0 is dark."""
    named = ["#202020", *SAFE]
    rows = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in named]
    rng = np.random.default_rng(0)  # fixed seed: the same random colours every time
    more = rng.integers(40, 256, (max(0, classes - len(rows)), 3)).tolist()
    return np.array([*rows, *more][:classes], np.uint8)


def painted(labels: Pixels, colours: Pixels) -> Pixels:
    """Colour a label map (H, W) -> (H, W, 3); unlabelled pixels are white."""
    whole = np.full((256, 3), 255, np.uint8)
    whole[: len(colours)] = colours[:256]
    return whole[labels]


def difference(image: Pixels, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Pixels:
    """Draw a dimmed image (H, W) -> (H, W, 3), blue where `first` and orange where `second`."""
    shown = np.repeat((64 + image[..., None] // 2).astype(np.uint8), 3, axis=2)
    shown[first], shown[second] = (0, 114, 178), (230, 159, 0)
    return shown


def legend(classes: Sequence[str], colours: Pixels, width: int = 700) -> Pixels:
    """Draw a legend (H, W, 3) of class colours and names, wrapped at `width` pixels."""
    font, line = ImageFont.load_default(14), 26
    places, left, top = [], 8, 0
    for name in (classes := [for_terminal(name)[:LEGEND] for name in classes]):
        needed = 34 + int(font.getlength(name))
        if left + needed > width and left > 8:
            left, top = 8, top + line
        places.append((left, top))
        left += needed
    picture = Image.new("RGB", (width, top + line), "white")
    draw = ImageDraw.Draw(picture)
    for name, colour, (x, y) in zip(classes, colours, places, strict=True):
        draw.rectangle((x, y + 6, x + 14, y + 20), fill=tuple(int(v) for v in colour), outline="#888")
        draw.text((x + 20, y + 4), name, fill="black", font=font)
    return np.asarray(picture)
