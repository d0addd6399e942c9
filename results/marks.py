"""What a reader must know of a source wherever it stands on a board: one definition for table, report and dashboard."""

from collections.abc import Mapping
from typing import Any


def marks(cell: Mapping[Any, Any]) -> list[str]:
    """The marks of a row of `results.board.board`: a leak, the share of the test that it has seen, or says so, a badge."""
    names = ("leak", "touched", "says_touched", "badge")
    leak, touched, says, badge = (None if value != value else value for value in (cell[name] for name in names))
    found = [] if leak is None else ["LEAK"]
    found += [f"saw {touched:.0%} of the test"] if touched else []
    found += [f"says it saw {says:.0%} of the test"] if says else []
    return found + ([] if badge is None else [f"submitted, {badge}"])
