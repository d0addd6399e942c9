"""Score against cost: which cells of a board no other cell beats in both."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results.cell_cost import COSTS, NOT_MEASURED, with_costs
from results.marks import marks

AXES = {  # column of COSTS of which less is better -> title
    "processor_hours": "processor hours of the cell",
    "million_parameters": "million parameters",
    "hours": "hours of the cell with one worker",
    "gflops": "GFLOPs per image",
    "peak_gb": "peak memory, GB",
}
FRONT_NOTE = (
    "The line joins the cells that no other cell beats: none costs as little or less and scores as much or more."
)
COLUMNS = ["source", "backbone", "cost", "score", "low", "high", "front"]


@dataclass(frozen=True)
class Pareto:
    """Cells by cost and score.

    Attributes:
        rows: COLUMNS, by cost. source: with its marks; front: whether no other cell beats it.
        left_out: a line for each cell that has no place, and why.
    """

    rows: pd.DataFrame
    left_out: tuple[str, ...]


def pareto(cells: pd.DataFrame, runs: pd.DataFrame, cost: str, metric: str = "miou") -> Pareto:
    """Return the cells of one board and train fraction by cost and score. cost: of AXES. runs: those behind the cells."""
    cells = cells[cells["status"] != "stale"]
    costed = cells if set(COSTS) <= set(cells.columns) else with_costs(cells, runs)
    names = {"cost": cost, "score": metric, "low": f"{metric}_low", "high": f"{metric}_high"}
    kept, left_out = [], []
    for cell in costed.to_dict("records"):
        why = _not_comparable(cell) or (NOT_MEASURED if pd.isna(cell[cost]) else None)
        if why is not None:
            left_out.append(f"{cell['source']} x {cell['backbone']}: {why}")
            continue
        # few replicates have no interval
        row = {name: math.nan if cell[column] is None else float(cell[column]) for name, column in names.items()}
        marked = str(cell["source"]) + "".join(f" ({mark})" for mark in marks(cell))
        kept.append({"source": marked, "backbone": cell["backbone"]} | row)
    rows = pd.DataFrame(kept, columns=COLUMNS[:-1])
    return Pareto(
        rows.assign(front=_front(rows)).sort_values("cost", kind="stable", ignore_index=True), tuple(left_out)
    )


def _not_comparable(cell: Mapping[Hashable, Any]) -> str | None:
    """Return why a score is not compared with others, or None."""
    if cell["status"] != "ok":
        return str(cell["status"])
    if pd.isna(cell["leak"]) and not (cell["ranked"] and pd.isna(cell["rank"])):
        return None
    return ", ".join(marks(cell)) or "not ranked"


def _front(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Return (N,) whether no other row has at most the cost and at least the score, and is better in one of the two."""
    cost, score = (rows[name].to_numpy(float) for name in ("cost", "score"))
    no_worse = (cost[:, None] <= cost) & (score[:, None] >= score)
    better = (cost[:, None] < cost) | (score[:, None] > score)
    return np.asarray(~(no_worse & better).any(axis=0), bool)
