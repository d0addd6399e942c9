"""The board's mIoU in mmsegmentation's convention, recomputed from the evidence: see `results.metrics.miou_mmsegmentation`."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from results import metrics
from results.evidence_files import EvidenceKey
from results.store import Store

CONVENTIONS = ("present", "mmseg")  # the first is the project's own: classes that occur in the truth
NOTE = "mIoU as in mmsegmentation: a class that is predicted and absent from the truth of all test images counts as 0"


def with_convention(runs: pd.DataFrame, convention: str | None) -> pd.DataFrame:
    """Return the runs with mIoU in this convention. runs: of one store.

    Raises:
        StoreError: the evidence of a run does not match its record.
    """
    if convention in (None, CONVENTIONS[0]) or runs.empty:
        return runs
    store = Store(Path(str(runs.attrs["root"])))
    values = [
        _miou(EvidenceKey.of_row(store, row)) if row["status"] == "ok" else np.nan for row in runs.to_dict("records")
    ]
    made = runs.assign(miou=pd.Series(values, runs.index, "float64"))
    made.attrs |= {"iou": convention}
    return made


@functools.lru_cache(maxsize=4096)
def _miou(key: EvidenceKey) -> float:
    return metrics.miou_mmsegmentation(key.read().confusion.astype(np.int64).sum(0))
