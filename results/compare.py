"""Sources held against each other on one board: by how much they differ, and how surely.

Effect, interval and raw p of a pair depend on its own runs alone; the Holm-adjusted p also on the others.
"""

import functools
import math
from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from results import stats
from results.board_choice import UnanswerableError
from results.known_leaks import LEAST_CLEAN
from results.replicate_scores import Samples, find_source, samples
from results.stats import Difference

CLASS_COLUMNS = {"miou": "class_iou", "weighted_f": "class_weighted_f"}
POOLED = "all"  # stands where a row is no single backbone's


def compare(found: Samples, a: str, b: str) -> pd.DataFrame:
    """How far `a` is ahead of `b`: a row a backbone, and one pooled over them where there are several.

    Columns: backbone, effect, low, high, p, p_holm (over all pairs of the board), shown (the smallest effect that this data
    would have found), mean_a, mean_b, n_a, n_b, why_not.

    Raises:
        UnanswerableError: one of them was not measured here, or they share no backbone.
    """
    for name in (a, b):
        find_source(found, name)
    if a == b:
        raise UnanswerableError(f"'{a}' against itself is no comparison")
    common = found.common(a, b)
    if (left := found.clean_share(a, b)) < LEAST_CLEAN:
        raise UnanswerableError(
            f"'{a}' and '{b}' have seen too much of the test to be compared: {left:.0%} of its images are left, and "
            f"{LEAST_CLEAN:.0%} are needed"
        )
    if not common:
        raise UnanswerableError(f"'{a}' and '{b}' were measured on no backbone in common")
    rows = [_row(found, a, b, name) for name in common]
    rows += [_row(found, a, b, None)] if len(common) > 1 else []
    return pd.DataFrame(rows)


def classes_of(runs: pd.DataFrame) -> list[str]:
    """The classes of all these runs.

    Raises:
        UnanswerableError: they are not the same in all, so one of the records is wrong.
    """
    found = {tuple(names) for names in runs["classes"]}
    if len(found) > 1:
        raise UnanswerableError("the runs of this board name different classes, so no class can be compared")
    return list(found.pop())


def compare_classes(
    runs: pd.DataFrame, a: str, b: str, metric: str = "miou", backbone: str | None = None
) -> pd.DataFrame:
    """How far `a` is ahead of `b` in each class, on one backbone or pooled. runs: rows of one board.

    Columns: class, effect, low, high, p_holm (over the classes), why_not. A class that the test does not contain has no effect.

    Raises:
        UnanswerableError: their classes are not the same.
    """
    rows, tested = [], {}
    runs = runs[runs["source"].isin([a, b])]
    for k, name in enumerate(classes_of(runs)):
        pairs = samples(runs, functools.partial(_of_class, CLASS_COLUMNS[metric], k)).pair(a, b, backbone)
        told = stats.difference(pairs) if pairs else Difference(math.nan, why_not="absent from the test")
        if told.p is not None:
            tested[k] = told.p
        why = "the same in every run of one of them" if told.why_not == stats.AGREE else told.why_not
        rows.append({"class": name, "effect": told.effect, "low": told.low, "high": told.high, "why_not": why})
    adjusted = dict(zip(tested, stats.holm(list(tested.values())), strict=True))
    frame = pd.DataFrame(rows).assign(p_holm=pd.Series(adjusted, dtype="float64"))
    return frame.astype(dict.fromkeys(("effect", "low", "high", "p_holm"), "float64"))


def _of_class(column: str, k: int, row: Mapping[Hashable, Any]) -> float:
    value = row[column][k]
    return math.nan if value is None else float(value)


def _row(found: Samples, a: str, b: str, backbone: str | None) -> dict[str, Any]:
    pairs = found.pair(a, b, backbone)
    told = stats.difference(pairs)
    adjusted = all_pairs(found, backbone)
    turned = adjusted.get((a, b)) or adjusted.get((b, a))
    return {
        "backbone": backbone or POOLED,
        "effect": told.effect,
        **{name: getattr(told, name) for name in ("low", "high", "p")},
        "p_holm": turned[1] if turned else None,
        "shown": told.minimum_detectable_effect,
        "mean_a": stats.mean([stats.mean(mine) for mine, _ in pairs]),
        "mean_b": stats.mean([stats.mean(theirs) for _, theirs in pairs]),
        "n_a": min(len(mine) for mine, _ in pairs),
        "n_b": min(len(theirs) for _, theirs in pairs),
        "why_not": told.why_not,
    }


def all_pairs(found: Samples, backbone: str | None = None) -> dict[tuple[str, str], tuple[Difference, float | None]]:
    """(difference, Holm-adjusted p) of every pair of sources, on one backbone or pooled over those that both have."""
    told = {
        (a, b): stats.difference(pairs)
        for a, b in combinations(sorted(found.scores), 2)
        if (pairs := found.pair(a, b, backbone))
    }
    tested = {key: one.p for key, one in told.items() if one.p is not None}
    adjusted = dict(zip(tested, stats.holm(list(tested.values())), strict=True))
    return {key: (one, adjusted.get(key)) for key, one in told.items()}
