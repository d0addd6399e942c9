"""Tiers: rank sources by the number of sources established better."""

from itertools import combinations

import pandas as pd

from results import stats
from results.compare import all_pairs
from results.replicate_scores import Samples

TIER_ALPHA = 0.05  # a source is established better if the Holm-adjusted p is below this


def tier_notes(data: Samples, rows: pd.DataFrame) -> list[str]:
    """Return notes to show with tiers. rows: from `tiers(data)`."""
    notes = ["Tier: one plus the number of sources established better (Holm-adjusted p < 5 %)."]
    notes += ["Sources in the same tier are not shown to differ; this does not mean that they are equal."]
    if len({frozenset(data.scores[name]) for name in rows["source"]}) > 1:
        notes.append("Means over different backbones are not comparable; tiers are, because they use common backbones.")
    if untested := int(rows["untested"].sum()) // 2:
        notes.append(f"{untested} pairs have no interval or no common backbone, so they do not affect the tiers.")
    return notes


def tiers(data: Samples, backbone: str | None = None) -> pd.DataFrame:
    """Assign tiers: one plus the number of sources established better (Holm-adjusted p < 5 %, pooled over backbones).

    Columns: tier (missing if no pair of the source has an interval, or the board is not ranked), source, mean, backbones, n,
    beaten_by, untested (pairs of the source without an interval).
    """
    pairs = all_pairs(data, backbone)
    names = [
        name
        for name in sorted(data.scores)
        if data.scores[name] and (backbone is None or backbone in data.scores[name])
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
        by = {key: values for key, values in data.scores[name].items() if backbone in (None, key)}
        rows.append(
            {
                "tier": 1 + len(beaten[name]) if data.judged and tested[name] else None,
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
