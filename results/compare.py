"""Pairwise comparison of sources on one board.

Effect, interval and raw p of a pair depend only on its own runs; the Holm-adjusted p also depends on the other pairs.
"""

import functools
import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from results import stats
from results.board_choice import UnanswerableError
from results.known_leaks import LEAST_CLEAN
from results.replicate_scores import Samples, find_source, samples
from results.stats import Difference
from results.uncertainty import all_pairs

CLASS_COLUMNS = {"miou": "class_iou", "weighted_f": "class_weighted_f"}
POOLED = "all"  # backbone column of a row pooled over backbones
INTERVALS = ("trainings", "images", "both")
HOW = """95 % intervals over trainings (replicates; Welch's, of the mean difference over backbones for 'all'), over groups of test
images (jackknife, for these trained models), and over both together. p and verdicts are over both, or over trainings alone where
there is no interval over images; p Holm corrects for all pairs of the board. 'could show': the smallest difference that such data
detects in 80 % of experiments."""


def compare(data: Samples, a: str, b: str) -> pd.DataFrame:
    """Compare `a` with `b`: one row per backbone, and a pooled row if there are several.

    Columns: backbone, effect; low, high, p: over trainings and images together, or over trainings alone where there is no
    interval over images; p_holm: over all `pairs` of the board; shown: minimum detectable effect; ends of each of INTERVALS,
    such as images_low; mean_a, mean_b, n_a, n_b, why_not; images: note on the groups of images.

    Raises:
        UnanswerableError: a source has no usable runs on this board, or the two share no backbone.
    """
    for name in (a, b):
        find_source(data, name)
    if a == b:
        raise UnanswerableError(f"cannot compare '{a}' with itself: name two sources")
    common = data.common(a, b)
    if (left := data.clean_share(a, b)) < LEAST_CLEAN:
        raise UnanswerableError(
            f"'{a}' and '{b}' cannot be compared: together they have seen too many test images; {left:.0%} are left, and "
            f"{LEAST_CLEAN:.0%} are required"
        )
    if not common:
        raise UnanswerableError(f"'{a}' and '{b}' have no backbone in common")
    rows = [_row(data, a, b, name) for name in common]
    rows += [_row(data, a, b, None)] if len(common) > 1 else []
    return pd.DataFrame(rows)


def classes_of(runs: pd.DataFrame) -> list[str]:
    """Return the classes that all runs have in common.

    Raises:
        UnanswerableError: the runs have different classes.
    """
    classes = {tuple(names) for names in runs["classes"]}
    if len(classes) > 1:
        raise UnanswerableError("the runs of this board have different classes, so classes cannot be compared")
    return list(classes.pop())


def compare_classes(
    runs: pd.DataFrame, a: str, b: str, metric: str = "miou", backbone: str | None = None
) -> pd.DataFrame:
    """Compare `a` with `b` in each class, on one backbone or pooled. runs: rows of one board.

    Columns: class, effect, low, high, p_holm (over the classes), why_not. The effect is NaN for a class absent from the test split.

    Raises:
        UnanswerableError: the runs have different classes.
    """
    rows, tested = [], {}
    runs = runs[runs["source"].isin([a, b])]
    for k, name in enumerate(classes_of(runs)):
        pairs = samples(runs, functools.partial(_of_class, CLASS_COLUMNS[metric], k)).pair(a, b, backbone)
        difference = stats.difference(pairs) if pairs else Difference(math.nan, why_not="absent from the test split")
        if difference.p is not None:
            tested[k] = difference.p
        why = "identical in every run of one source" if difference.why_not == stats.AGREE else difference.why_not
        rows.append(
            {"class": name, "effect": difference.effect, "low": difference.low, "high": difference.high, "why_not": why}
        )
    adjusted = dict(zip(tested, stats.holm(list(tested.values())), strict=True))
    frame = pd.DataFrame(rows).assign(p_holm=pd.Series(adjusted, dtype="float64"))
    return frame.astype(dict.fromkeys(("effect", "low", "high", "p_holm"), "float64"))


def _of_class(column: str, k: int, row: Mapping[Hashable, Any]) -> float:
    value = row[column][k]
    return math.nan if value is None else float(value)


def _row(data: Samples, a: str, b: str, backbone: str | None) -> dict[str, Any]:
    pairs = data.pair(a, b, backbone)
    found = all_pairs(data, backbone)
    one, adjusted = found[min(a, b), max(a, b)]
    one = one if a < b else one.turned()
    difference = one.judged
    ends = {f"{kind}_{end}": getattr(getattr(one, kind), end) for kind in INTERVALS for end in ("low", "high")}
    return {
        "backbone": backbone or POOLED,
        "effect": difference.effect,
        **{name: getattr(difference, name) for name in ("low", "high", "p")},
        "p_holm": adjusted,
        "pairs": sum(p is not None for _, p in found.values()),
        "shown": difference.minimum_detectable_effect,
        **ends,
        "mean_a": stats.mean([stats.mean(mine) for mine, _ in pairs]),
        "mean_b": stats.mean([stats.mean(theirs) for _, theirs in pairs]),
        "n_a": min(len(mine) for mine, _ in pairs),
        "n_b": min(len(theirs) for _, theirs in pairs),
        "why_not": difference.why_not,
        "images": one.note,
    }


def p_text(value: float | None) -> str:
    """Format a p value, or - if there is none."""
    if value is None or pd.isna(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
