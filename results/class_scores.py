"""Scores that a board shows when asked: of each class, and mIoU without background. Means over the replicates of each cell.

Older records lack some of them. These are computed from the evidence of a run, only where they are asked for.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from results import metrics
from results.compare import classes_of
from results.evidence_files import EvidenceKey
from results.further import CELL
from results.store import Store, StoreError

Values = list[float | None]  # (K,)


class ClassScore(NamedTuple):
    """A score of each class.

    Attributes:
        column: of a run. title: as tables and pages show it. note: its definition.
    """

    column: str
    title: str
    note: str


CLASS_SCORES = {
    "iou": ClassScore("class_iou", "IoU", "correct pixels / pixels that are of the class or predicted as it"),
    "weighted_f": ClassScore("class_weighted_f", "weighted F", "mean over the test images that contain the class"),
    "precision": ClassScore("class_precision", "precision", "correct pixels / pixels predicted as the class"),
    "recall": ClassScore("class_recall", "recall", "correct pixels / pixels of the class"),
    "area": ClassScore("class_area_ratio", "area ratio", "pixels predicted as the class / pixels of the class"),
    "false_presence": ClassScore(
        "class_false_presence", "false presence", "share of the test images without the class in which it is predicted"
    ),
}
UNDEFINED = "a replicate has no pixels or images to divide by"  # what a missing mean says
RUN_SCORES = {"miou_no_background": "mIoU without background"}  # column of a run -> title
_FROM_EVIDENCE = {
    "class_precision": metrics.class_precision,
    "class_recall": metrics.class_recall,
    "class_area_ratio": metrics.class_area_ratio,
}


class Means(NamedTuple):
    """Means over replicates. values: rows are cells. unread: why some are missing."""

    values: pd.DataFrame
    unread: tuple[str, ...] = ()


def class_means(runs: pd.DataFrame, cells: pd.DataFrame, name: str) -> Means:
    """Return the (cells, K) means of a score of each class; columns are the classes, the index is that of `cells`.

    A mean is missing where a replicate has no value, such as precision of a class that it never predicts.

    runs, cells: rows of one board. name: of CLASS_SCORES.

    Raises:
        UnanswerableError: the runs have different classes.
    """
    classes = classes_of(runs)
    ok = runs[(runs["status"] == "ok") & runs["cell"].isin(cells["cell"])]
    lists, unread = _lists(ok, CLASS_SCORES[name].column, len(classes))
    names = range(len(classes))  # names may be repeated
    values = pd.DataFrame(lists, index=pd.MultiIndex.from_frame(ok[CELL]), columns=names, dtype="float64")
    means = _of_cells(values, cells).set_axis(classes, axis="columns")
    missing = f"{CLASS_SCORES[name].title} is missing for {len(unread)} run{'s' * (len(unread) > 1)}"
    return Means(means, (f"{missing}: {unread[0]}",) if unread else ())


def run_means(runs: pd.DataFrame, cells: pd.DataFrame, name: str) -> "pd.Series[float]":
    """Return the (cells,) means of a score of RUN_SCORES, with the index of `cells`."""
    ok = runs[runs["status"] == "ok"]
    values = pd.DataFrame({name: ok[name].to_numpy(dtype="float64")}, index=pd.MultiIndex.from_frame(ok[CELL]))
    return _of_cells(values, cells)[name]


def evidence_needed(runs: pd.DataFrame, names: Sequence[str]) -> int:
    """Return of how many runs the evidence must be read for these scores, at most; what was read before is kept."""
    columns = [CLASS_SCORES[name].column for name in names]
    return max([0, *(int(((runs["status"] == "ok") & runs[column].isna()).sum()) for column in columns)])


def _of_cells(values: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    means = values.groupby(level=CELL, sort=False).mean(skipna=False)
    return means.reindex(pd.MultiIndex.from_frame(cells[CELL])).set_axis(cells.index, axis="index")


def _lists(ok: pd.DataFrame, column: str, classes: int) -> tuple[list[Values], list[str]]:
    """Return (values of each run, reasons for those that are missing)."""
    lists: list[Values] = []
    unread: list[str] = []
    older = ok[column].isna().to_numpy()
    rows = iter(ok[older].to_dict("records"))
    for values, is_older in zip(ok[column], older, strict=True):
        if is_older:
            try:
                values = _from_evidence(_key(ok, next(rows)))[column]
            except StoreError as error:
                unread.append(str(error))
                values = ()
        lists.append(list(values) if len(values) == classes else [None] * classes)
    return lists, unread


def _key(runs: pd.DataFrame, row: dict[Any, Any]) -> EvidenceKey:
    if "root" not in runs.attrs:
        raise StoreError("the table does not say which store it is of: use results.load_table")
    return EvidenceKey.of_row(Store(Path(str(runs.attrs["root"]))), row)


@functools.lru_cache(maxsize=2**17)
def _from_evidence(key: EvidenceKey) -> dict[str, tuple[float, ...]]:
    """Return the scores of each class that older records lack; NaN where undefined.

    Raises:
        StoreError: the evidence of the run does not match its record.
    """
    total = key.read().confusion.astype(np.int64).sum(0)
    return {column: tuple(of(total).tolist()) for column, of in _FROM_EVIDENCE.items()}
