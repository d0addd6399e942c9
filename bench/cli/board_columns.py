"""Columns that `bench table --columns` adds to the board. Loads no torch."""

from collections.abc import Sequence

import pandas as pd

from bench import BenchError
from pretrain_sources.config_file import suggestion
from results.board import BOARD
from results.board_choice import UnanswerableError
from results.cell_cost import COSTS, with_costs
from results.class_scores import CLASS_SCORES, RUN_SCORES, class_means, run_means
from results.escape import unique
from results.record import column_docs

COST = "cost"  # stands for all columns on cost
NAMES = (*RUN_SCORES, COST, *CLASS_SCORES)
LIST = "list"  # what stands for `listing()`


def columns_of(text: str | None, views: Sequence[str] = ()) -> list[str]:
    """Return the names in a comma-separated list. A score may also be named as the column of a run that it comes from.

    Raises:
        BenchError: a name is unknown; there are other tables (`views`) to show, which take no columns.
    """
    if text is None:
        return []
    if views:
        raise BenchError(f"--columns adds to the board and not to --{views[0]}: choose one of the two")
    of_runs = {score.column: name for name, score in CLASS_SCORES.items()}
    names = [of_runs.get(part.strip(), part.strip()) for part in text.split(",")]
    if odd := [name for name in names if name not in NAMES]:
        raise BenchError(f"--columns: no column '{odd[0]}'{suggestion(odd[0], NAMES)}")
    return list(dict.fromkeys(names))


def listing() -> str:
    """Return a line for each name: what it is of, and its definition."""
    docs = column_docs()
    rows = [(name, "run", docs[name]) for name in RUN_SCORES]
    rows += [(COST, "cell", ", ".join(COSTS.values()))]
    rows += [(name, "class", score.note) for name, score in CLASS_SCORES.items()]
    width = max(map(len, NAMES))
    return "\n".join(f"{name:<{width}}  each {of:<5}  {text}" for name, of, text in rows)


def widened(cells: pd.DataFrame, runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the cells with columns of these scores: one, or one for each class, such as `precision person`."""
    parts = []
    for _, rows in cells.groupby(BOARD, sort=False):
        of_board = runs[(runs[BOARD] == rows[BOARD].iloc[0].tolist()).all(axis=1)]
        parts.append(added_columns(rows, of_board, names))
    return cells.join(pd.concat(parts)) if parts else cells


def added_columns(cells: pd.DataFrame, runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the columns to add to the cells of one board; none of classes if its runs have different ones."""
    made = pd.DataFrame(index=cells.index)
    for name in names:
        if name in RUN_SCORES:
            made[name] = run_means(runs, cells, name)
            continue
        if name == COST:
            made = made.join(with_costs(cells, runs)[list(COSTS)])
            continue
        try:
            values = class_means(runs, cells, name).values
        except UnanswerableError:
            continue
        made = made.join(values.set_axis(unique(f"{name} {label}" for label in values.columns), axis="columns"))
    return made
