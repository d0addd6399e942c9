"""How a score grows with a size: images of a corpus, groups of them, share of the target's labels.

A power law with an asymptote, y = top - drop * x^-rate, by weighted least squares; its bands from bootstrap samples of the
replicates. Judged by predicting the largest size from the others, against a constant.
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

Verdict = Literal["still rising", "plateau", "non-monotone", "unclear", "not enough points"]
RATES = np.geomspace(0.05, 4, 48)  # exponents that are tried
LEAST_SIZES = 4
DRAWS = 1000
FLAT = 0.005  # a doubling that brings less is a plateau
FALL_ALPHA = 0.05  # of the Holm-adjusted p below which a larger size is established worse
BEYOND = "the interval ends beyond the measured range"


@dataclass(frozen=True)
class Curve:
    """Scores over sizes, and what is made of them.

    Attributes:
        sizes: (S,) ascending. scores: size -> (R,). at: (X,) sizes of the band. fit, low, high: (X,), None without a fit.
        doubling: gain that twice the largest size would bring, with its interval. left_out: of the largest size, predicted from
            the others: error of the power law and of the constant. verdict, why.
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
    """What the replicate scores of each size say. scores: size > 0 -> (R,)."""
    sizes = tuple(sorted(scores))
    held = {size: tuple(scores[size]) for size in sizes}
    if len(sizes) < LEAST_SIZES:
        return Curve(sizes, held, "not enough points", f"{len(sizes)} sizes; a curve needs {LEAST_SIZES}")
    if min(map(len, held.values())) < stats.MIN_REPLICATES:
        return Curve(sizes, held, "not enough points", f"fewer than {stats.MIN_REPLICATES} replicates at some size")
    if any(len(set(values)) == 1 for values in held.values()):
        return Curve(sizes, held, "unclear", f"at some size the {stats.AGREE}")
    x = np.array(sizes, float)
    means = np.array([stats.mean(held[size]) for size in sizes])
    errors = _errors(held)
    at = np.geomspace(x[0], 2 * x[-1], 60)
    drawn = np.array([_means(held[size], draws, rng) for size in sizes]).T
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
    verdict, why = _verdict(held, doubling, left_out)
    return Curve(sizes, held, verdict, why, at, fitted, low, high, doubling, left_out)


def _verdict(
    scores: Mapping[float, tuple[float, ...]], doubling: tuple[float, float, float], left_out: tuple[float, float]
) -> tuple[Verdict, str]:
    sizes = list(scores)
    told = {
        (small, large): stats.difference([(scores[large], scores[small])])
        for i, small in enumerate(sizes)
        for large in sizes[i + 1 :]
    }
    tested = {pair: one for pair, one in told.items() if one.p is not None}
    adjusted = stats.holm([one.p for one in tested.values() if one.p is not None])
    falls = [pair for (pair, one), p in zip(tested.items(), adjusted, strict=True) if one.effect < 0 and p < FALL_ALPHA]
    if falls:
        return "non-monotone", f"{falls[0][1]:g} is established worse than {falls[0][0]:g}"
    gain, low, high = doubling
    told_gain = f"twice the largest size: {gain:+.4f} ({low:+.4f} to {high:+.4f})"
    better = abs(left_out[0]) < abs(left_out[1])
    if low > 0 and better:
        return "still rising", told_gain
    last = told[sizes[-2], sizes[-1]]  # the fitted curve alone is too sure that what it does not see is flat
    if high < FLAT and last.high is not None and last.high / np.log2(sizes[-1] / sizes[-2]) < FLAT:
        return "plateau", told_gain
    reason = "" if better else "; a constant predicts the largest size as well as the power law does"
    return "unclear", told_gain + reason


def _means(scores: Sequence[float], draws: int, rng: np.random.Generator) -> Floats:
    """(D,) means of bootstrap samples of (R,) scores. Of R drawn from R they spread too little, by the root of (R - 1) / R."""
    mean = stats.mean(scores)
    drawn = rng.choice(np.asarray(scores, float), (draws, len(scores))).mean(1)
    found: Floats = mean + (drawn - mean) * np.sqrt(len(scores) / (len(scores) - 1))
    return found


def _errors(scores: Mapping[float, tuple[float, ...]]) -> Floats:
    """(S,) standard errors; the spread of a replicate is pooled over the sizes, which few replicates cannot tell apart."""
    spare = sum(len(values) - 1 for values in scores.values())
    squares = sum((value - stats.mean(values)) ** 2 for values in scores.values() for value in values)
    deviation = max(np.sqrt(squares / spare), 1e-9)
    return np.array([deviation / np.sqrt(len(values)) for values in scores.values()])


def _fit(x: Floats, y: Floats, errors: Floats, at: Floats) -> Floats:
    """(D, X) fitted values at `at` for (D, S) scores: for each rate a line in x^-rate by weighted least squares; best rate."""
    weights = errors**-2 / (errors**-2).sum()
    best = np.full(len(y), np.inf)
    found = np.zeros((len(y), len(at)))
    for rate in RATES:
        u, there = (x / x[-1]) ** -rate, (at / x[-1]) ** -rate
        centre = weights @ u
        level = y @ weights
        slope = ((y - level[:, None]) * weights) @ (u - centre) / (weights @ (u - centre) ** 2)
        left = ((y - level[:, None] - slope[:, None] * (u - centre)) ** 2) @ weights
        better = left < best - 1e-15
        best[better] = left[better]
        found[better] = level[better, None] + slope[better, None] * (there - centre)
    return found


def label_savings(
    without: Mapping[float, Sequence[float]], score: Sequence[float], rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float | None, float | None, float | None]:
    """The share of labels at which `without` a pretraining reaches what the source has with its own: (share, low, high).

    Read off the line through the means over the logarithm of the share; None where it lies beyond the measured range. No
    interval (None) where some share has fewer than three replicates, or they agree.
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
    found = np.array([crossing(row, wanted) for row, wanted in zip(drawn, reached, strict=True)])
    values = (crossing(means, stats.mean(score)), *np.quantile(found, [0.025, 0.975], method="nearest"))
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
    """Backbone -> size -> (R,) scores of the cells that count. table: rows of one target, protocol and identity of both.

    n: subsets of `source` and the whole, by the images that were trained on. groups: subsets of one n from so many groups.
    train_fraction: `source` itself on shares of the target's labels.

    Raises:
        UnanswerableError: an unknown axis, nothing on it, or groups of several n.
    """
    if axis not in AXES:
        raise UnanswerableError(f"unknown axis '{axis}'; known: {', '.join(AXES)}")
    found: dict[str, dict[float, tuple[float, ...]]] = {}
    for name, size in _subsets(table["source"].unique(), axis, source).items():
        for frac, rows in _shares(table[table["source"] == name], axis):
            counted = samples(rows, metric)
            for backbone, scores in counted.scores.get(name, {}).items():
                at = frac if axis == "train_fraction" else size or _images(counted.runs, backbone)
                if at in found.get(backbone, {}):
                    raise UnanswerableError(
                        f"two subsets of '{source}' have {at:g} {AXES[axis]} on {backbone}: no one curve"
                    )
                if not math.isnan(at):
                    found.setdefault(backbone, {})[at] = tuple(scores)
    if not found:
        raise UnanswerableError(f"'{source}' has no complete cells along {axis} ({AXES[axis]}) here")
    return {backbone: dict(sorted(by.items())) for backbone, by in sorted(found.items())}


def _subsets(names: Iterable[str], axis: str, source: str) -> dict[str, float | None]:
    """Those of these sources that lie on the axis of `source` -> their size, where the name says it.

    Raises:
        UnanswerableError: they are groups of several n.
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
            f"groups of subsets of {', '.join(sorted(counts))} images are no one curve: filter the store"
        )
    return wanted


def _shares(rows: pd.DataFrame, axis: str) -> Iterator[tuple[float, pd.DataFrame]]:
    """(share of the target's labels, its rows): each of them along `train_fraction`, along the other axes all labels alone."""
    if axis == "train_fraction":
        yield from ((float(frac), part) for frac, part in rows.groupby("train_frac"))  # type: ignore[arg-type]
    elif len(whole := rows[rows["train_frac"] == 1]):
        yield 1.0, whole


def _images(runs: pd.DataFrame, backbone: str) -> float:
    """How many images a source was trained on, by the runs on this backbone."""
    return float(runs.loc[runs["backbone"] == backbone, "pretrain_images"].max())


def without_pretraining(
    table: pd.DataFrame, axis: str, source: str, metric: str = "miou"
) -> dict[str, dict[float, tuple[float, ...]]]:
    """The points of `none` that label savings are read off from; empty where there are none, or on another axis."""
    if axis != "train_fraction" or source == "none":
        return {}
    try:
        return points(table, axis, "none", metric)
    except UnanswerableError:
        return {}


def sizes_frame(
    curves: Mapping[str, Curve], without: Mapping[str, Mapping[float, Sequence[float]]] | None = None
) -> pd.DataFrame:
    """A row for each backbone and size: backbone, size, mean, low, high, replicates.

    With `without` also labels, labels_low, labels_high (`label_savings`) and labels_note, which says why one is missing.
    """
    rows = []
    for name, told in curves.items():
        for size in told.sizes:
            scores = told.scores[size]
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
