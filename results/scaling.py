"""Scaling curves: scores over images of a corpus, groups of images, or the share of the target's labels.

A power law with an asymptote, y = top - drop * x^-rate, is fitted by weighted least squares; bands come from bootstrap samples of
the replicates. The fit is validated by predicting the largest size from the others, compared with a constant.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from results import stats
from results.board_choice import UnanswerableError
from results.replicate_scores import samples
from results.stats import Floats

Verdict = Literal[
    "still rising", "saturated within the range", "plateau", "non-monotone", "unclear", "not enough points"
]
RATES = np.geomspace(0.05, 4, 48)  # grid of exponents
LEAST_SIZES = 4
DRAWS = 1000
FLAT = 0.005  # margin: a smaller gain per doubling does not count as rising
FALL_ALPHA = 0.05  # a larger size is established worse if the Holm-adjusted p is below this
BEYOND = "the interval ends beyond the measured range"


@dataclass(frozen=True)
class Curve:
    """Scores over sizes, with the fitted curve and a verdict.

    Attributes:
        sizes: (S,) ascending. scores: size -> (R,). why: reason for the verdict. at: (X,) sizes of the band. fit, low, high: (X,),
            None without a fit. doubling: (gain, low, high) expected from twice the largest size. left_out: errors of power law and
            constant in predicting the largest size from the others.
    """

    sizes: tuple[float, ...]
    scores: Mapping[float, tuple[float, ...]]
    verdict: Verdict
    why: str
    at: Floats | None = None
    fit: Floats | None = None
    low: Floats | None = None
    high: Floats | None = None
    doubling: tuple[float, float, float] | None = None
    left_out: tuple[float, float] | None = None


def curve(scores: Mapping[float, Sequence[float]], rng: np.random.Generator, draws: int = DRAWS) -> Curve:
    """Fit and judge a curve. scores: size > 0 -> (R,)."""
    sizes = tuple(sorted(scores))
    by_size = {size: tuple(scores[size]) for size in sizes}
    if len(sizes) < LEAST_SIZES:
        return Curve(sizes, by_size, "not enough points", f"{len(sizes)} sizes; a curve needs at least {LEAST_SIZES}")
    if min(map(len, by_size.values())) < stats.MIN_REPLICATES:
        return Curve(sizes, by_size, "not enough points", f"fewer than {stats.MIN_REPLICATES} replicates at some sizes")
    if any(len(set(values)) == 1 for values in by_size.values()):
        return Curve(sizes, by_size, "unclear", f"at some sizes, {stats.AGREE}")
    x = np.array(sizes, float)
    means = np.array([stats.mean(by_size[size]) for size in sizes])
    errors = _errors(by_size)
    at = np.geomspace(x[0], 2 * x[-1], 60)
    drawn = np.array([_means(by_size[size], draws, rng) for size in sizes]).T
    fitted, band = _fit(x, means[None], errors, at)[0], _fit(x, drawn, errors, at)
    low, high = np.quantile(band, [0.025, 0.975], axis=0)
    ends = np.array([x[-1], 2 * x[-1]])
    now, twice = _fit(x, means[None], errors, ends)[0]
    gains = np.diff(_fit(x, drawn, errors, ends), axis=1)[:, 0]
    least, most = np.quantile(gains, [0.025, 0.975])
    doubling = float(twice - now), float(least), float(most)
    predicted = float(_fit(x[:-1], means[None, :-1], errors[:-1], x[-1:])[0, 0])
    constant = float(np.average(means[:-1], weights=errors[:-1] ** -2))
    left_out = (predicted - float(means[-1]), constant - float(means[-1]))
    verdict, why = _verdict(by_size, doubling, left_out)
    return Curve(sizes, by_size, verdict, why, at, fitted, low, high, doubling, left_out)


def _verdict(
    scores: Mapping[float, tuple[float, ...]], doubling: tuple[float, float, float], left_out: tuple[float, float]
) -> tuple[Verdict, str]:
    sizes = list(scores)
    differences = {
        (small, large): stats.difference([(scores[large], scores[small])])
        for i, small in enumerate(sizes)
        for large in sizes[i + 1 :]
    }
    tested = {pair: one for pair, one in differences.items() if one.p is not None}
    adjusted = stats.holm([one.p for one in tested.values() if one.p is not None])
    falls = [pair for (pair, one), p in zip(tested.items(), adjusted, strict=True) if one.effect < 0 and p < FALL_ALPHA]
    if falls:
        return "non-monotone", f"{falls[0][1]:g} is established worse than {falls[0][0]:g}"
    gain, low, high = doubling
    expected = f"twice the largest size: {gain:+.4f} ({low:+.4f} to {high:+.4f})"
    better = abs(left_out[0]) < abs(left_out[1])
    last = differences[sizes[-2], sizes[-1]]  # the fitted curve alone is overconfident about a plateau
    if high < FLAT and last.high is not None and last.high / np.log2(sizes[-1] / sizes[-2]) < FLAT:
        return "plateau", expected
    if low > 0 and better:
        return ("still rising" if gain >= FLAT else "saturated within the range"), expected
    reason = "" if better else "; a constant predicts the largest size at least as well as the power law"
    return "unclear", expected + reason


def _means(scores: Sequence[float], draws: int, rng: np.random.Generator) -> Floats:
    """Return (D,) means of bootstrap samples of (R,) scores, rescaled because R of R draws underestimate the spread."""
    mean = stats.mean(scores)
    drawn = rng.choice(np.asarray(scores, float), (draws, len(scores))).mean(1)
    means: Floats = mean + (drawn - mean) * np.sqrt(len(scores) / (len(scores) - 1))
    return means


def _errors(scores: Mapping[float, tuple[float, ...]]) -> Floats:
    """Return (S,) standard errors; the variance of a replicate is pooled over sizes, because replicates are few."""
    freedom = sum(len(values) - 1 for values in scores.values())
    squares = sum((value - stats.mean(values)) ** 2 for values in scores.values() for value in values)
    deviation = max(np.sqrt(squares / freedom), 1e-9)
    return np.array([deviation / np.sqrt(len(values)) for values in scores.values()])


def _fit(x: Floats, y: Floats, errors: Floats, at: Floats) -> Floats:
    """Return (D, X) fitted values at `at` for (D, S) scores: a weighted linear fit in x^-rate for each rate; the best is kept."""
    weights = errors**-2 / (errors**-2).sum()
    best = np.full(len(y), np.inf)
    fitted = np.zeros((len(y), len(at)))
    for rate in RATES:
        u, there = (x / x[-1]) ** -rate, (at / x[-1]) ** -rate
        centre = weights @ u
        level = y @ weights
        slope = ((y - level[:, None]) * weights) @ (u - centre) / (weights @ (u - centre) ** 2)
        left = ((y - level[:, None] - slope[:, None] * (u - centre)) ** 2) @ weights
        better = left < best - 1e-15
        best[better] = left[better]
        fitted[better] = level[better, None] + slope[better, None] * (there - centre)
    return fitted


def label_savings(
    without: Mapping[float, Sequence[float]], score: Sequence[float], rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float | None, float | None, float | None]:
    """Return the (share, low, high) of labels at which training `without` pretraining reaches `score`.

    Interpolated linearly over the logarithm of the share; None beyond the measured range. No interval (None) if some share has
    fewer than three replicates, or identical ones.
    """
    sizes = np.array(sorted(without))
    x = np.log(sizes)

    def crossing(means: Floats, wanted: float) -> float:
        rising = np.maximum.accumulate(means)
        if wanted > rising[-1]:
            return np.inf
        if wanted < rising[0]:
            return -np.inf
        return float(np.exp(np.interp(wanted, rising, x)))

    means = np.array([stats.mean(without[size]) for size in sizes])
    if any(stats.t_interval(values).why_not for values in (*without.values(), score)):
        read_off = crossing(means, stats.mean(score))
        return (read_off if np.isfinite(read_off) else None), None, None
    drawn = np.array([_means(without[size], draws, rng) for size in sizes]).T
    reached = _means(score, draws, rng)
    crossings = np.array([crossing(row, wanted) for row, wanted in zip(drawn, reached, strict=True)])
    values = (crossing(means, stats.mean(score)), *np.quantile(crossings, [0.025, 0.975], method="nearest"))
    share, low, high = (float(value) if np.isfinite(value) else None for value in values)
    return share, low, high


AXES = {
    "n": "images of the corpus",
    "groups": "groups of images in the corpus",
    "train_fraction": "share of the target's labels",
}
SUBSET = re.compile(r"(?P<base>.*?)(?:/n-(?P<n>\d+(?:pct)?)(?:-groups-(?P<groups>[1-9]\d{0,8}))?)?", re.DOTALL)


def points(
    table: pd.DataFrame, axis: str, source: str, metric: str = "miou"
) -> dict[str, dict[float, tuple[float, ...]]]:
    """Return backbone -> size -> (R,) scores of the comparable cells. table: rows of one target and protocol.

    Axis n: `source` and its subsets, by number of training images. groups: subsets of one size n, by number of groups.
    train_fraction: `source`, by share of the target's labels.

    Raises:
        UnanswerableError: the axis is unknown or has no cells, or the sizes are ambiguous.
    """
    if axis not in AXES:
        raise UnanswerableError(f"unknown axis '{axis}'; known: {', '.join(AXES)}")
    sizes: dict[str, dict[float, tuple[float, ...]]] = {}
    for name, size in _subsets(table["source"].unique(), axis, source).items():
        for frac, rows in _shares(table[table["source"] == name], axis):
            counted = samples(rows, metric)
            for backbone, scores in counted.scores.get(name, {}).items():
                at = frac if axis == "train_fraction" else size or _images(counted.runs, backbone)
                if at in sizes.get(backbone, {}):
                    raise UnanswerableError(
                        f"two subsets of '{source}' have {at:g} {AXES[axis]} on {backbone}: keep one of them in the store"
                    )
                if not math.isnan(at):
                    sizes.setdefault(backbone, {})[at] = tuple(scores)
    if not sizes:
        raise UnanswerableError(
            f"'{source}' has no complete cells along {axis} ({AXES[axis]}): choose another source or axis"
        )
    return {backbone: dict(sorted(by.items())) for backbone, by in sorted(sizes.items())}


def _subsets(names: Iterable[str], axis: str, source: str) -> dict[str, float | None]:
    """Return the names on the axis of `source` -> size, if the name contains it.

    Raises:
        UnanswerableError: the subsets have several sizes n.
    """
    wanted: dict[str, float | None] = {}
    counts = set()
    for name in names:
        parts = SUBSET.fullmatch(name)
        if parts is None or parts["base"] != source:
            continue
        if (axis == "train_fraction" and name == source) or (axis == "n" and not parts["groups"]):
            wanted[name] = None
        elif axis == "groups" and parts["groups"]:
            wanted[name] = float(parts["groups"])
            counts.add(str(parts["n"]))
    if len(counts) > 1:
        raise UnanswerableError(
            f"the groups belong to subsets of {', '.join(sorted(counts))} images: keep one size in the store"
        )
    return wanted


def _shares(rows: pd.DataFrame, axis: str) -> Iterator[tuple[float, pd.DataFrame]]:
    """Yield (share of labels, rows): every share along `train_fraction`, only the full set along other axes."""
    if axis == "train_fraction":
        yield from ((float(frac), part) for frac, part in rows.groupby("train_frac"))  # type: ignore[arg-type]
    elif len(whole := rows[rows["train_frac"] == 1]):
        yield 1.0, whole


def _images(runs: pd.DataFrame, backbone: str) -> float:
    """Return the number of pretraining images of the runs on this backbone."""
    return float(runs.loc[runs["backbone"] == backbone, "pretrain_images"].max())


def without_pretraining(
    table: pd.DataFrame, axis: str, source: str, metric: str = "miou"
) -> dict[str, dict[float, tuple[float, ...]]]:
    """Return the points of `none`, the reference for label savings; empty if missing, or on another axis."""
    if axis != "train_fraction" or source == "none":
        return {}
    try:
        return points(table, axis, "none", metric)
    except UnanswerableError:
        return {}


def sizes_frame(
    curves: Mapping[str, Curve], without: Mapping[str, Mapping[float, Sequence[float]]] | None = None
) -> pd.DataFrame:
    """Return one row per backbone and size: backbone, size, mean, low, high, replicates.

    With `without` also labels, labels_low, labels_high (`label_savings`) and labels_note, the reason for a missing value.
    """
    rows = []
    for name, one in curves.items():
        for size in one.sizes:
            scores = one.scores[size]
            interval = stats.t_interval(scores)
            row = {
                "backbone": name,
                "size": size,
                "mean": stats.mean(scores),
                "low": interval.low,
                "high": interval.high,
            }
            row |= {"replicates": len(scores)}
            if without and name in without:
                labels = label_savings(without[name], scores, np.random.default_rng(0))
                few = next(
                    (i.why_not for v in (*without[name].values(), scores) if (i := stats.t_interval(v)).why_not), None
                )
                note = "beyond the measured range" if labels[0] is None else few or (BEYOND if None in labels else "")
                row |= dict(zip(("labels", "labels_low", "labels_high"), labels, strict=True)) | {"labels_note": note}
            rows.append(row)
    return pd.DataFrame(rows)
