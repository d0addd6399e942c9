"""Further test splits: the same runs scored at another place or by another camera, as tables and boards of their own."""

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from results import stats
from results.board import BOARD, CELL_NAMES
from results.board_choice import UnanswerableError
from results.record import TEST
from results.scores import Scores

CELL = [*BOARD, *CELL_NAMES, "cell"]  # the same for all runs of a cell


def splits_of(runs: pd.DataFrame) -> list[str]:
    """Return the test splits that some of these runs were scored on: `test`, then the further ones by name."""
    return [TEST, *sorted({name for text in runs["further"].dropna().unique() for name in json.loads(text)})]


def on_split(runs: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """Return the table with scores and evidence of a test split in place of those of `test` (None: `test`).

    Measured runs without the split are left out. Failed runs stay where their board has the split: without them, a cell would
    seem to be waiting for its other replicates.

    Raises:
        UnanswerableError: no run was scored on this split; the message names those that exist.
    """
    if split in (None, TEST):
        return runs
    known = splits_of(runs)
    if split not in known:
        raise UnanswerableError(f"no runs are scored on a test split '{split}'; available: {', '.join(known)}")
    found = [json.loads(text).get(split) if isinstance(text, str) else None for text in runs["further"]]
    scored = pd.Series([one is not None for one in found], index=runs.index)
    boards = set(runs.loc[scored, BOARD].itertuples(index=False, name=None))
    here = pd.Series([key in boards for key in runs[BOARD].itertuples(index=False, name=None)], index=runs.index)
    kept = scored | (here & (runs["status"] != "ok"))
    rows = runs[kept].assign(test_split=split)
    parts = [{} if one is None else one["scores"] | {"evidence_sha256": one["evidence_sha256"]} for one in found]
    parts = [part for part, keep in zip(parts, kept, strict=True) if keep]
    for name in (*Scores.model_fields, "evidence_sha256"):
        rows[name] = pd.Series([part.get(name) for part in parts], index=rows.index, dtype=_type_of(rows[name]))
    return rows


def _type_of(column: "pd.Series[Any]") -> str:
    """Return the type for new values of a column: numbers are floats, NaN where there is none."""
    return "float64" if pd.api.types.is_numeric_dtype(column) else str(column.dtype)


def with_further(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Add a column for each further test split: the mean mIoU of each cell. cells: `board(runs)`, of the split `test`."""
    keys = pd.MultiIndex.from_frame(cells[CELL])
    for name in splits_of(runs)[1:]:
        rows = on_split(runs, name)
        means = rows[rows["status"] == "ok"].groupby(CELL)["miou"].agg(stats.mean)
        cells = cells.assign(**{column_of(name): means.reindex(keys).to_numpy(dtype="float64")})
    return cells


def column_of(split: str) -> str:
    """Return the name of the column that `with_further` adds. No other column of a board has a space in it."""
    return f"miou {split}"


def further_of(columns: Iterable[str]) -> list[str]:
    """Return the further test splits of which `with_further` added a column to these."""
    return [name.removeprefix(column_of("")) for name in columns if name.startswith(column_of(""))]
