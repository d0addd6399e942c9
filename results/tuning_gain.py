"""What tuning gained on val, how large its noise is, and by how much the best of equal candidates is ahead by chance."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results import stats
from results.schedule_names import DEFAULT, TPE_FROM_TRIALS

if TYPE_CHECKING:
    import pandas as pd

NO_GAIN = "-"
BY_CHANCE = "the best of {trials} equal candidates is ahead of trial 0 by {error:.1f} SE on average, by chance alone"


@dataclass(frozen=True)
class Gain:
    """What tuning gained on val.

    Attributes:
        value: val mIoU of the chosen trial - of trial 0; None if either is unknown. standard_error: of the difference of two
            trials; None if each was trained once. trainings: of each trial; 0 without tuning.
    """

    value: float | None
    standard_error: float | None
    trainings: int


def gain_of(run: Mapping[Any, Any]) -> Gain:
    """Return what the tuning of a run gained. run: a row of the table."""
    tuned, default = (_number(run[name]) for name in ("tuned_val_miou", "default_val_miou"))
    value = None if tuned is None or default is None else tuned - default
    text = run["training_val_mious"]
    if not isinstance(text, str):
        return Gain(value, None, int(tuned is not None))
    trainings = json.loads(text)
    return Gain(value, standard_error(trainings), max(map(len, trainings), default=0))


def standard_error(trainings: Sequence[Sequence[float | None]]) -> float | None:
    """Return the standard error of the difference of two trials: sd * sqrt(2 / R) for R trainings of each.

    trainings: val mIoU of each training, by trial. sd: from the variance between trainings of one trial, pooled over the trials
    that did not diverge. None if no trial was trained more than once.
    """
    whole = [[value for value in values if value is not None] for values in trainings if None not in values]
    whole = [values for values in whole if len(values) > 1]
    if not whole:
        return None
    squares = math.fsum((value - stats.mean(values)) ** 2 for values in whole for value in values)
    freedom = sum(len(values) - 1 for values in whole)
    return math.sqrt(squares / freedom * 2 / max(map(len, whole)))


def gain_text(trials: float | None, gain: float | None, error: float | None) -> str:
    """Format a gain: `+0.0120 (1.3 SE)`, or why there is none."""
    trials, gain, error = _number(trials), _number(gain), _number(error)
    if trials is None or trials < 2:
        return NO_GAIN
    if gain is None:
        return "trial 0 diverged"
    if gain == 0:
        return "0 (trial 0 won)"
    return f"{gain:+.4f} ({'SE unknown' if error is None else f'{gain / error:.1f} SE' if error else 'SE 0'})"


def proposals(trials: int, trainings: int = 1) -> str:
    """Describe the candidates of a tuning: where they come from, and how often each is trained."""
    if trials < 2:
        return "the default schedule alone, so nothing is tuned"
    made = (
        f"TPE, {trials} trials"
        if trials >= TPE_FROM_TRIALS
        else f"{trials} fixed candidates, the same for every source"
    )
    return made if trainings < 2 else f"{made}, {trainings} trainings each"


def gain_notes(cells: Iterable[Mapping[Any, Any]]) -> list[str]:
    """Return the notes that belong to the gains of a board, about its candidates, its noise and chance. cells: its rows."""
    rows = list(cells)
    if any(row["schedule_kind"] == DEFAULT for row in rows):
        return ["schedule: the protocol's default (trial 0), not tuned"]
    trials, trainings = (
        int(max((_number(row[name]) or 0 for row in rows), default=0)) for name in ("trials", "trainings")
    )
    if not trials:
        return []  # no run has a result
    if trials < 2:
        return [f"schedule: {proposals(trials)}"]
    measured = "SE: the standard error of a gain, from the variance between trainings of one trial"
    unknown = "SE unknown: each trial was trained once, so the noise was not measured (tune_replicates of the protocol)"
    return [
        "gain of tuning: validation mIoU of the chosen trial - of trial 0, the default schedule; used for selection only",
        f"schedules: {proposals(trials, trainings)}; {BY_CHANCE.format(trials=trials, error=by_chance(trials))}",
        unknown if trainings < 2 else measured,
    ]


def gains(runs: Sequence[Mapping[Any, Any]]) -> "tuple[pd.DataFrame, list[str]]":
    """Return a row for each cell, with the expected best of fewer trials, and notes. runs: a run of each cell."""
    import pandas as pd

    most = int(max((run["trials"] for run in runs), default=0))
    counts = sorted({k for k in (1, 2, 4, 8, 16, 32, 64) if k < most} | ({most} if most else set()))
    rows, gained = [], []
    for run in runs:
        # a diverged trial scores 0
        tried = [_number(value) or 0.0 for value in run["trial_val_mious"]]
        best = [stats.expected_best(tried, k) if k <= len(tried) else math.nan for k in counts]
        gained.append(gain_of(run))
        rows.append(
            (
                run["source"],
                run["backbone"],
                run["default_val_miou"],
                gained[-1].value,
                gained[-1].standard_error,
                *best,
            )
        )
    columns = ["source", "backbone", "default", "tuned - default", "SE", *(f"best of {k}" for k in counts)]
    frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], "float64"))
    lost = any(len(run["trial_val_mious"]) == 0 for run in runs)
    notes = ["'best of k': expected best validation mIoU of k random trials"]
    notes += ["'-' under 'best of': recorded before trials were stored one by one"] if lost else []
    shown = [{**run, "trainings": gain.trainings} for run, gain in zip(runs, gained, strict=True)]
    return frame, [*notes, *gain_notes(shown)]


def by_chance(trials: int) -> float:
    """Return the expected gain of tuning among equal candidates, in standard errors of a gain.

    The best of k means with standard deviation s is E_k s above their common expectation, for E_k see `stats.expected_maximum`, and
    trial 0, one of them, is 0 s above it; the standard error of a difference is sqrt(2) s.
    """
    return stats.expected_maximum(trials) / math.sqrt(2)


def _number(value: Any) -> float | None:  # noqa: ANN401
    """Return a number of a table; None in place of a missing one."""
    return None if value is None or value != value else float(value)
