"""What a reader must know of a source wherever it stands on a board: one definition for table, report and dashboard."""

from collections.abc import Mapping
from typing import Any


def marks(cell: Mapping[Any, Any]) -> list[str]:
    """The marks of a row of `results.table.board`: a leak, the share of the test that it has seen, a submission's badge."""
    leak, touched, badge = (
        None if value != value else value for value in (cell[n] for n in ("leak", "touched", "badge"))
    )
    found = [] if leak is None else ["LEAK"]
    found += [f"saw {touched:.0%} of the test"] if touched else []
    return found + ([] if badge is None else [f"submitted, {badge}"])
