"""Sources in tiers: how many others are established better than each."""

from itertools import combinations

import pandas as pd

from results import stats
from results.compare import all_pairs
from results.replicate_scores import Samples

TIER_ALPHA = 0.05  # of the Holm-adjusted p below which one source is established better


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
