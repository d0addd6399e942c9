"""Intervals of the mean mIoU of each cell of a board: over test images, and over trainings and images together.

The board itself has those over trainings, which need no evidence.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results import stats
from results.over_images import NoImagesError, cell, counts_of_row, variance
from results.stats import Difference
from results.store import StoreError
from results.uncertainty import DAMAGED, MOST_RUNS, Uncertainty, uncertain

COLUMNS = ("miou_images_low", "miou_images_high", "miou_both_low", "miou_both_high")
INTERVALS_NOTE = (
    "95 %: over trainings; 95 % images: over groups of test images, for these models; 95 % both: over both together"
)
NOTE = "images_note"  # column: what groups of images there are, or why there is no interval over them


def with_intervals(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the cells with COLUMNS and NOTE. runs: those behind the cells.

    No evidence is read where there are more than MOST_RUNS of them.
    """
    used = runs[(runs["status"] == "ok") & runs["cell"].isin(cells.loc[cells["n"] > 0, "cell"])]
    root = None if "iou" in runs.attrs else runs.attrs.get("root")
    if root is None or len(used) > MOST_RUNS:
        many = f"No interval over images: there are {len(used):,} runs here, and the evidence of up to {MOST_RUNS} is read."
        why = many if len(used) > MOST_RUNS else None
        return cells.assign(**dict.fromkeys(COLUMNS, np.nan), **{NOTE: pd.Series(why, cells.index, "str")})
    found = {str(name): _of_cell(Path(str(root)), rows.to_dict("records")) for name, rows in used.groupby("cell")}
    ends = {name: pd.Series([_end(found.get(key), name) for key in cells["cell"]], cells.index) for name in COLUMNS}
    notes = [found[key].note if key in found else None for key in cells["cell"]]
    return cells.assign(**ends, **{NOTE: pd.Series(notes, cells.index, "str")})


def _of_cell(root: Path, rows: Sequence[Mapping[Any, Any]]) -> Uncertainty:
    scores = [float(row["miou"]) for row in rows]
    mean, error = stats.mean(scores), float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else 0.0
    alone = stats.t_interval(scores)
    trainings = Difference(mean, why_not=alone.why_not)
    if alone.low is not None:
        trainings = stats.t_difference(mean, error, len(scores) - 1)
    try:
        return uncertain(trainings, variance([(cell([counts_of_row(root, row) for row in rows], "miou"), None)]))
    except NoImagesError as error_:
        return uncertain(trainings, str(error_))
    except StoreError:
        return uncertain(trainings, DAMAGED)


def _end(found: Uncertainty | None, column: str) -> float:
    _, kind, end = column.split("_")
    value = None if found is None else getattr(getattr(found, kind), end)
    return np.nan if value is None else float(value)
