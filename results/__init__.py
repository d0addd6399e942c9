"""Results: records, their store, the metrics behind them, and the board made from them. Never loads torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas


def load_table(store: "str | Path") -> "pandas.DataFrame":
    """One row a run: every record in `store`, as described in results/COLUMNS.md.

    Raises:
        StoreError: `store` is no folder. Records that cannot be read are left out and named in `.attrs["unreadable"]`.
    """
    from results.store import Store
    from results.table import runs_frame

    return runs_frame(Store(store))
