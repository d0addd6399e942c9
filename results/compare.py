"""Sources held against each other on one board: by how much they differ, how surely, and in which tiers that puts them.

What counts are cells that are whole: every replicate there and ok, the newest identity of its name, no source that is marked as a
leak. Test images that one of a pair has seen are left out of that pair.
Effect, interval and raw p of a pair depend on its own runs alone; the Holm-adjusted p and the tier also on the others.
"""

import functools
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results import known_leaks, stats
from results.board import BOARD, board
from results.known_leaks import LEAST_CLEAN, KnownLeaks, clean_row, scored_images
from results.stats import Difference

METRICS = {"miou": "mIoU", "weighted_f": "weighted F-measure"}
CLASS_COLUMNS = {"miou": "class_iou", "weighted_f": "class_weighted_f"}
POOLED = "all"  # stands where a row is no single backbone's
TIER_ALPHA = 0.05  # of the Holm-adjusted p below which one source is established better


class UnanswerableError(ValueError):
    """A question that this table cannot answer; the message says why and what to do."""


@dataclass(frozen=True)
class Samples:
    """Replicate scores of one board.

    Attributes:
        scores: source -> backbone -> (R,). left_out: (source, backbone) -> why a cell does not count. notes: of the board, with
            what is in `about`: source -> what must be said wherever it is compared.
    """

    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    left_out: Mapping[tuple[str, str], str]
    notes: tuple[str, ...] = ()
    judged: bool = True  # false for a board whose protocol is too short to rank anything
    runs: pd.DataFrame = field(default_factory=pd.DataFrame)  # the rows that the scores are from
    touched: Mapping[str, frozenset[str]] = field(default_factory=dict)  # source -> test images that it has seen
    about: Mapping[str, str] = field(default_factory=dict)
    scored: frozenset[str] = frozenset()  # the test images, where a source has seen some
    rescore: Callable[[str, str, frozenset[str]], tuple[float, ...]] | None = (
        None  # source, backbone, images left out -> (R,)
    )

    def pair(self, a: str, b: str, backbone: str | None = None) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """Their scores on the backbones (or the one) that both were measured on, without test images that one of them has seen."""
        names, seen = self.common(a, b, backbone), self.seen(a, b)
        if not seen or self.rescore is None:
            return [(self.scores[a][name], self.scores[b][name]) for name in names]
        return [(self.rescore(a, name, seen), self.rescore(b, name, seen)) for name in names]

    def seen(self, a: str, b: str) -> frozenset[str]:
        """The test images that one of the two has seen."""
        return self.touched.get(a, frozenset()) | self.touched.get(b, frozenset())

    def clean_share(self, a: str, b: str) -> float:
        """Of the test images that neither has seen."""
        seen = self.seen(a, b)
        return 1 - len(seen & self.scored) / len(self.scored) if seen and self.scored else 1.0

    def common(self, a: str, b: str, backbone: str | None = None) -> list[str]:
        """The backbones that both were measured on; none where they have seen too much of the test to be judged."""
        if self.clean_share(a, b) < LEAST_CLEAN:
            return []
        names = sorted(self.scores.get(a, {}).keys() & self.scores.get(b, {}).keys())
        return [name for name in names if backbone in (None, name)]


def one_board(
    table: pd.DataFrame, target: str | None = None, protocol: str | None = None, train_frac: float | None = None
) -> pd.DataFrame:
    """The rows of one board and share of labels (all of them, unless one is named): only these can be compared.

    Raises:
        UnanswerableError: there are none, or those of several boards.
    """
    rows = one_protocol(table, target, protocol)
    fracs = sorted(rows["train_frac"].unique())
    wanted = 1.0 if train_frac is None and 1.0 in fracs else train_frac
    if wanted is None and len(fracs) > 1:
        raise UnanswerableError(
            f"name one --train-frac of {', '.join(map(str, fracs))}: different shares are not compared"
        )
    rows = rows[rows["train_frac"] == (fracs[0] if wanted is None else wanted)]
    if rows.empty:
        raise UnanswerableError(f"no runs of --train-frac {wanted}; there are: {', '.join(map(str, fracs))}")
    return rows


def one_protocol(table: pd.DataFrame, target: str | None = None, protocol: str | None = None) -> pd.DataFrame:
    """The rows of one target and protocol, for all shares of its labels; of several identities of both the newest.

    Raises:
        UnanswerableError: there are none, or those of several targets or protocols.
    """
    rows = table
    wanted = {"target": target, "protocol": protocol}
    for name, value in wanted.items():
        rows = rows if value is None else rows[rows[name] == value]
    if rows.empty:
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
        raise UnanswerableError(f"no runs of {asked} in this store" if asked else "no runs in this store yet")
    several = rows[list(wanted)].drop_duplicates()
    if len(several) > 1:
        told = "; ".join(f"{name}, {by}" for name, by in several.itertuples(index=False, name=None))
        raise UnanswerableError(
            f"results of different targets or protocols are never compared: name one with --target, --protocol: {told}"
        )
    measured = rows[rows["status"] == "ok"]  # what measured nothing replaces nothing
    if "submission" in measured and not (here := measured[measured["submission"].isna()]).empty:
        measured = here  # nor does what somebody else has measured
    newest = (rows if measured.empty else measured).sort_values(["finished", *BOARD])[BOARD].iloc[-1]
    found = rows[(rows[BOARD] == newest.tolist()).all(axis=1)]
    if len(found) < len(rows):
        others = f"{len(rows) - len(found)} runs on other data, settings or versions of the same names are left out"
        found.attrs["notes"] = [*rows.attrs.get("notes", ()), others]
    return found


def samples(
    runs: pd.DataFrame, metric: str | Callable[[Any], float] = "miou", cells: pd.DataFrame | None = None
) -> Samples:
    """The replicate scores of the cells that count.

    runs: rows of one board. metric: a column, or of a row (NaN: absent). cells: `results.board.board(runs)`, if it is known.

    Raises:
        UnanswerableError: there is no such metric.
    """
    if isinstance(metric, str) and metric not in METRICS:
        raise UnanswerableError(f"unknown metric '{metric}'; known: {', '.join(METRICS)}")
    cells = board(runs) if cells is None else cells
    good = cells[(cells["status"] == "ok") & cells["leak"].isna()]
    left_out: dict[tuple[str, str], str] = {}
    for cell in cells[~cells.index.isin(good.index)].to_dict("records"):
        if cell["status"] != "stale":
            why = cell["leak"] if pd.notna(cell["leak"]) else f"{cell['status']}: {cell['reason']}"
            left_out[str(cell["source"]), str(cell["backbone"])] = str(why)
    touched, root = runs.attrs.get("known_leaks", KnownLeaks()), runs.attrs.get("root")
    rows = runs[(runs["status"] == "ok") & runs["cell"].isin(good["cell"])]
    rows = rows.sort_values(["source", "backbone", "replicate"])
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows.to_dict("records"):
        scores.setdefault(row["source"], {}).setdefault(row["backbone"], []).append(_value(row, metric))

    def rescore(source: str, backbone: str, images: frozenset[str]) -> tuple[float, ...]:
        of_cell = rows[(rows["source"] == source) & (rows["backbone"] == backbone)]
        try:
            return tuple(_value(clean_row(Path(str(root)), row, images), metric) for row in of_cell.to_dict("records"))
        except ValueError as error:
            raise UnanswerableError(
                f"nothing is left of the test without what '{source}' is compared without: {error}"
            ) from error

    whole = {
        source: {backbone: tuple(values) for backbone, values in by.items() if not np.isnan(values).any()}
        for source, by in scores.items()
    }
    if isinstance(metric, str):
        torn = [(s, b) for s, by in scores.items() for b in by if b not in whole[s]]
        left_out |= dict.fromkeys(torn, f"one of its runs has no {METRICS[metric]}")
    first = cells.iloc[0]
    judged = bool(first["ranked"])
    notes = [f"{first['target']}, {first['protocol']}: {first['label_note']}"]
    notes += [] if judged else ["TOO SHORT TO RANK ANYTHING: this only shows that every part works."]
    notes += ["SELECTED ON TEST, like its peers."] if first["selected_on_test"] else []
    notes += runs.attrs.get("notes", ())
    unreadable = len(runs.attrs.get("unreadable", ()))
    notes += [f"{unreadable} records or submissions are left out; `bench table` names them"] if unreadable else []
    seen = {source: ids for source in whole if (ids := touched.ids(str(first["target_hash"]), source))}
    scored = frozenset[str]() if not seen or root is None else scored_images(Path(str(root)), rows.iloc[0].to_dict())
    brought = good.dropna(subset="badge").drop_duplicates("source").set_index("source")["badge"]
    about = {str(source): f"{source} was submitted, not measured here ({badge})" for source, badge in brought.items()}
    more = {source: _seen(source, ids & scored, len(scored)) for source, ids in seen.items()}
    for source in whole.keys() - more.keys():
        if share := touched.said_share(str(first["target_hash"]), source):
            more[source] = known_leaks.unproven(source, share)
    about |= {source: f"{about[source]}; {told}" if source in about else told for source, told in sorted(more.items())}
    notes += about.values()
    rescorer = rescore if root is not None else None
    return Samples(whole, left_out, tuple(notes), judged, rows, seen, about, scored, rescorer)


def _seen(source: str, ids: frozenset[str], count: int) -> str:
    return (
        f"{source} has seen {len(ids)} of {count} test images ({len(ids) / count:.1%}): its pairs are compared on the others, "
        f"and not at all where fewer than {LEAST_CLEAN:.0%} are left"
    )


def _value(row: Mapping[Any, Any], metric: str | Callable[[Any], float]) -> float:
    return float(row[metric] if isinstance(metric, str) else metric(row))


def find_source(found: Samples, name: str) -> str:
    """The name, if a cell of it counts.

    Raises:
        UnanswerableError: none does, with the reason.
    """
    if found.scores.get(name):
        return name
    whys = {f"{backbone}: {why}" for (source, backbone), why in found.left_out.items() if source == name}
    if whys:
        raise UnanswerableError(f"no cell of '{name}' can be compared: {'; '.join(sorted(whys))}")
    raise UnanswerableError(
        f"no runs of '{name}' on this board; there are: {', '.join(sorted(found.scores)) or 'none'}"
    )


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


def tier_notes(found: Samples, rows: pd.DataFrame) -> list[str]:
    """What must be said beside tiers. rows: of `tiers(found)`."""
    notes = ["Tier: one plus how many sources are established better (Holm-adjusted p under 5 %)."]
    notes += ["Within a tier nothing is shown, which is not 'equal'."]
    if len({frozenset(found.scores[name]) for name in rows["source"]}) > 1:
        notes.append(
            "Means over different backbones do not compare; tiers do, by the backbones that two sources share."
        )
    if untested := int(rows["untested"].sum()) // 2:
        notes.append(f"{untested} pairs have no interval, or no backbone in common, and put nothing apart.")
    return notes


def tiers(found: Samples, backbone: str | None = None) -> pd.DataFrame:
    """Sources in tiers: one plus how many others are established better (Holm-adjusted p under 5 %, pooled over backbones).

    Columns: tier (missing where no pair of it has an interval, or the board ranks nothing), source, mean, backbones, n,
    beaten_by, untested (pairs of it without an interval). Sources of a tier are not shown to differ; that is not "equal".
    """
    pairs = all_pairs(found, backbone)
    names = [
        name
        for name in sorted(found.scores)
        if found.scores[name] and (backbone is None or backbone in found.scores[name])
    ]
    beaten: dict[str, list[str]] = {name: [] for name in names}
    tested, untested = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for a, b in combinations(names, 2):
        one, adjusted = pairs.get((a, b), (None, None))
        for name in (a, b):
            (untested if adjusted is None else tested)[name] += 1
        if one is not None and adjusted is not None and adjusted < TIER_ALPHA:
            better, worse = (a, b) if one.effect > 0 else (b, a)
            beaten[worse].append(better)
    rows = []
    for name in names:
        by = {key: values for key, values in found.scores[name].items() if backbone in (None, key)}
        rows.append(
            {
                "tier": 1 + len(beaten[name]) if found.judged and tested[name] else None,
                "source": name,
                "mean": stats.mean([stats.mean(values) for values in by.values()]),
                "backbones": len(by),
                "n": min(map(len, by.values())),
                "beaten_by": ", ".join(beaten[name]),
                "untested": untested[name],
            }
        )
    frame = pd.DataFrame(rows, columns=["tier", "source", "mean", "backbones", "n", "beaten_by", "untested"])
    frame["tier"] = frame["tier"].astype("Int64")
    return frame.sort_values(["tier", "mean"], ascending=[True, False], na_position="last", ignore_index=True)
