"""Select comparable runs: one target, one protocol, one schedule, tuned or default, one train fraction."""

import pandas as pd

from results.board import BOARD
from results.schedule_names import TUNED


class UnanswerableError(ValueError):
    """The question cannot be answered from this table; the message says why and what to do."""


def one_board(
    table: pd.DataFrame,
    target: str | None = None,
    protocol: str | None = None,
    train_frac: float | None = None,
    schedule: str | None = None,
) -> pd.DataFrame:
    """Return the rows of one board and one train fraction (default: 1.0). schedule: tuned (default) or default.

    Raises:
        UnanswerableError: no rows match, or the rows belong to several boards.
    """
    rows = one_protocol(table, target, protocol, schedule)
    fracs = sorted(rows["train_frac"].unique())
    wanted = 1.0 if train_frac is None and 1.0 in fracs else train_frac
    if wanted is None and len(fracs) > 1:
        raise UnanswerableError(
            f"runs with different train fractions are not compared; choose one with --train-frac: {', '.join(map(str, fracs))}"
        )
    rows = rows[rows["train_frac"] == (fracs[0] if wanted is None else wanted)]
    if rows.empty:
        raise UnanswerableError(f"no runs with --train-frac {wanted}; available: {', '.join(map(str, fracs))}")
    return rows


def on_schedule(table: pd.DataFrame, schedule: str | None = None) -> pd.DataFrame:
    """Return the runs with the tuned schedule (default) or with the default one: no board has both.

    Raises:
        UnanswerableError: there are runs, and all of them have the other schedule.
    """
    same = table["schedule_kind"] == (schedule or TUNED)
    if same.all():
        return table
    if not same.any():
        other = table["schedule_kind"].iloc[0]
        raise UnanswerableError(
            f"no runs with the {schedule or TUNED} schedule; those with the {other} one: --schedule {other}"
        )
    return table[same]


def schedules_of(runs: pd.DataFrame) -> list[str]:
    """Return the kinds of schedule of these runs, tuned first."""
    return sorted(runs["schedule_kind"].unique(), key=lambda kind: kind != TUNED)


def one_protocol(
    table: pd.DataFrame, target: str | None = None, protocol: str | None = None, schedule: str | None = None
) -> pd.DataFrame:
    """Return the rows of one target, protocol and schedule, for all train fractions; only the newest identity of the first two.

    Raises:
        UnanswerableError: no rows match, or the rows belong to several targets or protocols.
    """
    rows = table
    wanted = {"target": target, "protocol": protocol}
    for name, value in wanted.items():
        rows = rows if value is None else rows[rows[name] == value]
    if rows.empty:
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
        raise UnanswerableError(f"no runs with {asked} in this store" if asked else "no runs in this store yet")
    rows = on_schedule(rows, schedule)
    several = rows[list(wanted)].drop_duplicates()
    if len(several) > 1:
        available = "; ".join(f"{name}, {by}" for name, by in several.itertuples(index=False, name=None))
        raise UnanswerableError(
            f"results of different targets or protocols are not compared; choose one with --target, --protocol: {available}"
        )
    measured = rows[rows["status"] == "ok"]  # runs without results do not replace others
    if "submission" in measured and not (here := measured[measured["submission"].isna()]).empty:
        measured = here  # nor do submitted runs
    newest = (rows if measured.empty else measured).sort_values(["finished", *BOARD])[BOARD].iloc[-1]
    chosen = rows[(rows[BOARD] == newest.tolist()).all(axis=1)]
    if len(chosen) < len(rows):
        note = f"{len(rows) - len(chosen)} runs on other data, settings or versions of the same names are left out"
        chosen.attrs["notes"] = [*rows.attrs.get("notes", ()), note]
    return chosen
