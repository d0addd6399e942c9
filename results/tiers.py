"""Tiers: rank sources by the number of sources established better."""

from itertools import combinations

import pandas as pd

from results import stats
from results.replicate_scores import Samples
from results.uncertainty import all_pairs

COLUMNS = ["tier", "source", "mean", "backbones", "n", "beaten_by", "beaten_alone", "untested"]
TIER_ALPHA = 0.05  # a source is established better if the Holm-adjusted p is below this


def tier_notes(data: Samples, rows: pd.DataFrame) -> list[str]:
    """Return notes to show with tiers. rows: from `tiers(data)`."""
    notes = ["Tier: one plus the number of sources established better: Holm-adjusted p < 5 % among all pairs."]
    if (rows["beaten_alone"] != "").any():
        notes.append("Better alone: p < 5 % as a pair alone, not among all pairs.")
    notes += ["Sources in the same tier are not shown to differ; this does not mean that they are equal."]
    notes += rows.attrs.get("images", ())
    names = list(rows["source"])
    if len({frozenset(data.scores[name]) for name in names}) > 1:
        shared = " and ".join(shared_backbones(data, names))
        order = (
            f"is that of their mean on {shared}, which all sources have"
            if shared
            else "says nothing: no backbone has all sources"
        )
        notes.append(f"Within a tier, the order {order}; pairs are pooled over the backbones that both have.")
    if untested := int(rows["untested"].sum()) // 2:
        notes.append(f"{untested} pairs have no interval or no common backbone, so they do not affect the tiers.")
    return notes


def shared_backbones(data: Samples, names: list[str]) -> list[str]:
    """Return the backbones on which all these sources have scores."""
    return sorted(set.intersection(*(set(data.scores[name]) for name in names))) if names else []


def tier_table(data: Samples, rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """Return `rows`, from `tiers(data)`, as people read it. label: of the metric.

    If there are several backbones, the means stand on each of them: sources that lack one have no comparable mean over all.
    """
    shown = rows.drop(columns="untested").rename(
        columns={
            "mean": f"mean {label}",
            "n": "replicates",
            "beaten_by": "established better",
            "beaten_alone": "better alone",
        }
    )
    backbones = sorted({backbone for name in rows["source"] for backbone in data.scores[name]})
    if len(backbones) > 1:
        by_source = [data.scores[name] for name in rows["source"]]
        means = {
            f"{label} on {backbone}": [stats.mean(by[backbone]) if backbone in by else None for by in by_source]
            for backbone in backbones
        }
        shown = shown.drop(columns=[f"mean {label}", "backbones"])
        shown = pd.concat(
            [shown.iloc[:, :2], pd.DataFrame(means, index=shown.index), shown.iloc[:, 2:]], axis="columns"
        )
    return shown


def tiers(data: Samples) -> pd.DataFrame:
    """Assign tiers: one plus the number of sources established better (Holm-adjusted p < 5 %, pooled over backbones).

    Columns: tier (missing if no pair of the source has an interval, for an oracle, or if the board is not ranked), source, mean (on
    the backbones that all sources have; on its own if there is none), backbones, n, beaten_by, beaten_alone (by a pair alone, not
    among all), untested (pairs of the source without an interval).
    """
    pairs = all_pairs(data)
    names = [name for name in sorted(data.scores) if data.scores[name]]
    beaten, alone = ({name: list[str]() for name in names} for _ in range(2))
    tested, untested = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for a, b in combinations(names, 2):
        one, adjusted = pairs.get((a, b), (None, None))
        for name in (a, b):
            (untested if adjusted is None else tested)[name] += 1
        if one is None or adjusted is None:
            continue
        better, worse = (a, b) if one.judged.effect > 0 else (b, a)
        if adjusted < TIER_ALPHA:
            beaten[worse].append(better)
        elif one.judged.p is not None and one.judged.p < TIER_ALPHA:
            alone[worse].append(better)
    shared = shared_backbones(data, names)
    rows = []
    for name in names:
        ranked = data.judged and name not in data.oracles
        by = data.scores[name]
        rows.append(
            {
                "tier": 1 + len(set(beaten[name]) - data.oracles) if ranked and tested[name] else None,
                "source": name,
                "mean": stats.mean([stats.mean(by[key]) for key in shared or by]),
                "backbones": len(by),
                "n": min(map(len, by.values())),
                "beaten_by": ", ".join(beaten[name]),
                "beaten_alone": ", ".join(alone[name]),
                "untested": untested[name],
            }
        )
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["tier"] = frame["tier"].astype("Int64")
    frame.attrs["images"] = list(dict.fromkeys(one.note for one, _ in pairs.values()))
    return frame.sort_values(["tier", "mean"], ascending=[True, False], na_position="last", ignore_index=True)
