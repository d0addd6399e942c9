"""Ranks of a board on which some sources have seen test images: every two cells are compared on the images clean for both.

A source is not punished for having been searched: it is ranked on the rest of the images, if at least LEAST_CLEAN of them are left.
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from results import stats
from results.known_leaks import LEAST_CLEAN, KnownLeaks, clean_row, scored_images
from results.store import StoreError

Cell = Mapping[Hashable, Any]  # a row of the board


class Ranks:
    """Ranks of the comparable cells of a store. runs: its table."""

    def __init__(self, runs: pd.DataFrame, leaks: KnownLeaks) -> None:
        self._root = Path(str(runs.attrs["root"]))
        ok = runs[runs["status"] == "ok"]
        self._runs = {str(name): rows.to_dict("records") for name, rows in ok.groupby("cell")}
        self._leaks = leaks
        self._means: dict[tuple[str, frozenset[str]], float] = {}

    def of(self, cells: pd.DataFrame) -> "pd.Series[int]":
        """Return the rank of each cell; none for one that has seen too many images, or whose evidence cannot be read.

        cells: comparable ones of one board and train fraction.
        """
        rows = [row for row in cells.to_dict("records") if self._is_rankable(row)]
        ranks = {row["cell"]: 1 + sum(self._is_ahead(other, row) for other in rows) for row in rows}
        return pd.Series([ranks.get(cell) for cell in cells["cell"]], cells.index, dtype="Int64")

    def _is_rankable(self, cell: Cell) -> bool:
        try:
            if self._clean_share(cell, cell) < LEAST_CLEAN:
                return False
            self._mean(cell, self._seen(cell))
        except (StoreError, ValueError):
            return False
        return True

    def _is_ahead(self, one: Cell, other: Cell) -> bool:
        if one["cell"] == other["cell"] or self._clean_share(one, other) < LEAST_CLEAN:
            return False
        seen = self._seen(one) | self._seen(other)
        try:
            return self._mean(one, seen) > self._mean(other, seen)
        except (StoreError, ValueError):
            return False

    def _seen(self, cell: Cell) -> frozenset[str]:
        return self._leaks.ids(str(cell["target_hash"]), str(cell["source"]))

    def _clean_share(self, one: Cell, other: Cell) -> float:
        seen = self._seen(one) | self._seen(other)
        if not seen:
            return 1.0
        scored = scored_images(self._root, self._runs[str(one["cell"])][0])
        return 1 - len(seen & scored) / len(scored)

    def _mean(self, cell: Cell, seen: frozenset[str]) -> float:
        if not seen:
            return float(cell["miou"])
        key = (str(cell["cell"]), seen)
        if key not in self._means:
            runs = self._runs[key[0]]
            self._means[key] = stats.mean([float(clean_row(self._root, run, seen)["miou"]) for run in runs])
        return self._means[key]
