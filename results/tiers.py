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
    if len({frozenset(data.scores[name]) for name in rows["source"]}) > 1:
        notes.append("Means over different backbones are not comparable; tiers are, because they use common backbones.")
    if untested := int(rows["untested"].sum()) // 2:
        notes.append(f"{untested} pairs have no interval or no common backbone, so they do not affect the tiers.")
    return notes


def tiers(data: Samples, backbone: str | None = None) -> pd.DataFrame:
    """Assign tiers: one plus the number of sources established better (Holm-adjusted p < 5 %, pooled over backbones).

    Columns: tier (missing if no pair of the source has an interval, for an oracle, or if the board is not ranked), source, mean,
    backbones, n, beaten_by, beaten_alone (by a pair alone, not among all), untested (pairs of the source without an interval).
    """
    pairs = all_pairs(data, backbone)
    names = [
        name
        for name in sorted(data.scores)
        if data.scores[name] and (backbone is None or backbone in data.scores[name])
    ]
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
    rows = []
    for name in names:
        ranked = data.judged and name not in data.oracles
        by = {key: values for key, values in data.scores[name].items() if backbone in (None, key)}
        rows.append(
            {
                "tier": 1 + len(set(beaten[name]) - data.oracles) if ranked and tested[name] else None,
                "source": name,
                "mean": stats.mean([stats.mean(values) for values in by.values()]),
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
