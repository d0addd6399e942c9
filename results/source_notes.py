"""Licence of each source on a board, and what it has seen, as its card states them."""

import pandas as pd

STATED = "As the cards state it; nobody has checked it. Runs older than these fields say nothing."


def source_notes(runs: pd.DataFrame) -> pd.DataFrame:
    """Return source, licence and has_seen, a row for each source and what its runs state; missing where they state nothing."""
    columns = ["source", "licence", "has_seen"]
    rows = runs.sort_values("source", kind="stable")[columns].drop_duplicates()
    states = rows["licence"].notna() | rows["has_seen"].notna()
    stated = set(rows.loc[states, "source"])
    return rows[states | ~rows["source"].isin(stated)].reset_index(drop=True)
