"""The runs that a question is about: those of one target, protocol and share of labels. Only these can be compared."""

import pandas as pd

from results.board import BOARD


class UnanswerableError(ValueError):
    """A question that this table cannot answer; the message says why and what to do."""


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
