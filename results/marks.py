"""Marks shown beside a source or a board, shared by table, report and dashboard."""

from collections.abc import Mapping
from typing import Any

from results.record import TEST


def marks(cell: Mapping[Any, Any]) -> list[str]:
    """Return the marks of a row of `results.board.board`: leak, share of seen test images (verified or declared), badge."""
    names = ("leak", "touched", "says_touched", "badge")
    leak, touched, declared, badge = (None if value != value else value for value in (cell[name] for name in names))
    shown = [] if leak is None else ["LEAK"]
    shown += [f"has seen {touched:.0%} of the test"] if touched else []
    shown += [f"declares {declared:.0%} of the test seen"] if declared else []
    return shown + ([] if badge is None else [f"submitted, {badge}"])


def split_words(split: object) -> str:
    """Return what to add to the name of a board of a further test split; nothing for `test`."""
    return "" if split == TEST else f", test split {split}"
