"""What the cells of a board cost: size and speed of their networks, and hours of all that their runs were made from."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

COSTS = {  # column -> title in a table
    "million_parameters": "M params",
    "gflops": "GFLOPs",
    "images_per_s": "images/s",
    "peak_gb": "memory GB",
    "hours": "hours",
    "processor_hours": "processor h",
}
DOCS = {
    "million_parameters": "parameters of the network, in millions",
    "gflops": "billions of floating-point operations to predict one image",
    "images_per_s": "images predicted in a second on the run's device, one at a time; mean over replicates",
    "peak_gb": "peak memory of finetuning and scoring, in 10^9 bytes; the largest of the replicates",
    "hours": "hours of the whole cell with one worker: pseudo-labels, pretraining, tuning, and all replicates",
    "processor_hours": "processor hours of the same: CPU time, or on a GPU its time",
}
NOT_MEASURED = "not measured"
_SHARED, _EACH = ("corpus", "tune"), ("pretrain",)  # stages that are made once for a cell, and once for each replicate


def with_costs(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the cells with the columns of COSTS; NaN where a run was not measured. runs: those behind the cells."""
    ok = runs[runs["status"] == "ok"]
    found = {str(name): _of_cell(rows.to_dict("records")) for name, rows in ok.groupby("cell")}
    none = dict.fromkeys(COSTS, np.nan)
    rows = [found.get(name, none) for name in cells["cell"]]
    return cells.assign(**{name: pd.Series([row[name] for row in rows], cells.index, "float64") for name in COSTS})


def devices_note(runs: pd.DataFrame) -> str | None:
    """Return which devices the runs of a board were measured on, if there are several: their times do not compare."""
    devices = sorted({str(name) for name in runs.loc[runs["status"] == "ok", "device"] if pd.notna(name)})
    if len(devices) < 2:
        return None
    return f"Runs of different devices ({', '.join(devices)}): hours and images/s compare only between those of one"


def _of_cell(runs: Sequence[Mapping[Any, Any]]) -> dict[str, float]:
    def values(name: str) -> list[float]:
        return [math.nan if run[name] is None else float(run[name]) for run in runs]

    finals = [a + b for a, b in zip(values("train_s"), values("score_s"), strict=True)]
    return {
        "million_parameters": values("parameters")[0] / 1e6,
        "gflops": values("flops")[0] / 1e9,
        "images_per_s": float(np.mean(values("images_per_s"))),
        "peak_gb": float(np.max(values("peak_memory_bytes"))) / 1e9,
        "hours": _whole([values(f"{stage}_s") for stage in _SHARED], [finals, *(values(f"{s}_s") for s in _EACH)]),
        "processor_hours": _whole(
            [values(f"{stage}_processor_s") for stage in _SHARED],
            [values("final_processor_s"), *(values(f"{stage}_processor_s") for stage in _EACH)],
        ),
    }


def _whole(once: Sequence[Sequence[float]], each: Sequence[Sequence[float]]) -> float:
    """Return hours. once, each: seconds of stages made once for a cell, which all runs repeat, and of those of each run."""
    return (sum(float(np.max(stage)) for stage in once) + sum(float(np.sum(stage)) for stage in each)) / 3600
