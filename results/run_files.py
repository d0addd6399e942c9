"""Files beside a run's record: the history of its training and the trials of its tuning; and how to run it again."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from results.escape import unique
from results.limits import MOST
from results.schedule_names import TUNED, split_name
from safe_io.files import read_regular

T = TypeVar("T")  # Python 3.11 has no def f[T]

MOST_BYTES = 2**25  # limit per shown file: a history of a million steps
RISE = 0.005  # between the last two points of a val curve that still rises
# a page of a run begins with them
SCORES = ("miou", "miou_no_background", "weighted_f", "final_loss", "train_s", "score_s")


def parsed(path: Path, of: Callable[[bytes], T], broken: Callable[[str], object]) -> T | None:
    """Return a file of a run, parsed with `of`; None if it is missing, or invalid, which `broken` is told."""
    try:
        return of(read_regular(path, MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):  # untrusted input
        pass
    broken(f"{path.name} cannot be read")
    return None


def history_of(data: bytes) -> pd.DataFrame:
    """Parse a history.csv; return step, loss and val_miou, NaN where it has no point. Older files have no points.

    Raises:
        ValueError: the file is invalid.
    """
    names = ["step", "loss", "val_miou"]
    history = pd.read_csv(io.BytesIO(data), usecols=lambda name: name in names)
    if missing := {"step", "loss"} - set(history):
        raise ValueError(f"no column {min(missing)}")
    history = history.reindex(columns=names, fill_value=np.nan)
    numbers = all(kind.kind in "if" for kind in history.dtypes)
    if not numbers or not (np.abs(history[["step", "loss"]]) < MOST).all(axis=None):
        raise ValueError("steps and losses must be finite numbers")
    if not history["val_miou"].dropna().between(0, 1).all():
        raise ValueError("val_miou must be between 0 and 1")
    return history


def about_val(points: Sequence[float], val_frames: float | None) -> str:
    """Return a sentence on the val curve: what it is of, and whether it still rises. points: (P,) mIoU in order."""
    frames = "some frames" if val_frames is None or pd.isna(val_frames) else f"{val_frames:.0f} frames"
    rises = len(points) > 1 and points[-1] == max(points) and points[-1] - points[-2] > RISE
    now = "still rising at the last point" if rises else "not rising any more at the last point"
    return f"On val, {frames}, not used for any choice: {now}."


class Trial(BaseModel):
    """A line of trials.jsonl."""

    model_config = ConfigDict(allow_inf_nan=False)
    schedule: dict[str, float | str]
    val_miou: float | None = None
    val_mious: list[float | None] | None = None


def trials_of(data: bytes) -> pd.DataFrame:
    """Return one row per trial: trial, settings of the schedule, val_miou, and the val_mious of its trainings if it has several.

    A truncated last line is skipped.

    Raises:
        ValueError: a line is not a trial, or a setting has both numbers and strings.
    """
    *whole, last = data.split(b"\n")
    trials = [Trial.model_validate_json(line) for line in whole]
    with contextlib.suppress(ValueError):
        trials.append(Trial.model_validate_json(last))
    frame = pd.DataFrame([one.schedule for one in trials])
    if mixed := [name for name in frame if frame[name].map(type).nunique() > 1]:
        raise ValueError(f"{mixed[0]} is a number in some trials and a string in others")
    frame = frame.set_axis(unique(frame.columns, ("trial", "val_miou", "val_mious")), axis="columns")
    scores = pd.Series([one.val_miou for one in trials], dtype="float64")
    frame = frame.assign(val_miou=scores)
    if any(one.val_mious is not None for one in trials):
        frame = frame.assign(val_mious=[", ".join(map(_score, one.val_mious or ())) for one in trials])
    return frame.rename_axis("trial").reset_index()


def _score(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4f}"


def importance(trials: pd.DataFrame, least: int = 10) -> pd.Series | None:
    """Return the importance of each setting for the validation mIoU (PED-ANOVA of Optuna); None for fewer than `least` trials."""
    trials = trials.drop(columns="val_mious", errors="ignore").dropna()
    if len(trials) < least or trials["val_miou"].nunique() < 2:
        return None
    import optuna

    study = optuna.create_study(direction="maximize")
    space: dict[str, optuna.distributions.BaseDistribution] = {}
    for name in trials.columns.difference(["trial", "val_miou"]):
        values = trials[name]
        if values.nunique() > 1:
            number = pd.api.types.is_numeric_dtype(values)
            space[name] = (
                optuna.distributions.FloatDistribution(float(values.min()), float(values.max()))
                if number
                else optuna.distributions.CategoricalDistribution(sorted(values.unique(), key=str))
            )
    for row in trials.to_dict("records"):
        params = {name: row[name] for name in space}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=row["val_miou"]))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()  # the other evaluators need scikit-learn
    return pd.Series(optuna.importance.get_param_importances(study, evaluator=evaluator))


def matrix_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the matrix whose only cell is that of a run. row: of the table."""
    protocol, trials = split_name(str(row["protocol"]))
    matrix: dict[str, Any] = {"target": row["target"], "protocol": protocol}
    matrix |= {} if trials is None else {"trials": trials}
    matrix |= {"sources": [row["source"]], "backbones": [row["backbone"]], "train_fracs": [float(row["train_frac"])]}
    return matrix | ({} if row["schedule_kind"] == TUNED else {"schedules": [row["schedule_kind"]]})
