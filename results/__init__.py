"""Results: run records, the store, metrics, statistics and the board. Never imports torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas


def load_table(store: "str | Path") -> "pandas.DataFrame":
    """Return one row per run in `store`, with the columns of results/COLUMNS.md.

    Raises:
        StoreError: `store` is not a folder. Unreadable records are skipped and listed in `.attrs["unreadable"]`.
    """
    from results.store import Store
    from results.table import runs_frame

    return runs_frame(Store(store))
