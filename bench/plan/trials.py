"""The trials of a study, one JSON line each; the chosen schedule is computed from them. Does not import Optuna."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench import DivergedError
from results import stats
from results.store import read_json_lines
from results.tuning import Tuning


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        val_miou: the mean over its trainings; None if one diverged. val_mious: of each training, None for one that diverged, which
            is the last; None if the protocol has one training per trial.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    number: int
    schedule: dict[str, float | str]
    val_miou: float | None
    val_mious: list[float | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values of its line."""
        return {name: value for name, value in asdict(self).items() if name != "val_mious" or value is not None}

    def follows_from(self, trainings: int) -> bool:
        """Return whether its scores are those of so many trainings, or of fewer up to one that diverged."""
        values = [self.val_miou] if self.val_mious is None else self.val_mious
        last = values.index(None) + 1 if None in values else trainings
        return len(values) == last <= trainings and self == trial_of(self.number, self.schedule, values, trainings)


_TRIAL = TypeAdapter(Trial)


def trial_of(number: int, schedule: dict[str, float | str], values: Sequence[float | None], trainings: int) -> Trial:
    """Return a trial from the validation mIoU of each of its trainings. trainings: that the protocol asks for."""
    finite = [value for value in values if value is not None]
    mean = stats.mean(finite) if len(finite) == len(values) else None
    return Trial(number, schedule, mean, list(values) if trainings > 1 else None)


def read_trials(path: Path) -> list[Trial]:
    """Read the finished trials, in order; stop at a damaged line or a wrong trial number."""
    trials: list[Trial] = []
    for row in read_json_lines(path):
        try:
            trial = _TRIAL.validate_python(row)
        except ValidationError:
            break
        if trial.number != len(trials):
            break
        trials.append(trial)
    return trials


def read_unfinished(path: Path, number: int, schedule: Mapping[str, Any], trainings: int) -> list[float]:
    """Read the validation mIoUs of the finished trainings of a trial that is not finished; [] if there are none of it."""
    rows = list(read_json_lines(path))
    values = rows[-1].get("val_mious") if len(rows) == number + 1 else None
    if not isinstance(values, list) or rows[-1] != {"number": number, "schedule": schedule, "val_mious": values}:
        return []
    good = all(isinstance(value, float) and math.isfinite(value) for value in values) and len(values) < trainings
    return values if good else []


def best(trials: list[Trial]) -> tuple[Trial, float]:
    """Return (trial, validation mIoU) of the best trial; the first of equals.

    Raises:
        DivergedError: all trials diverged.
    """
    finished = [(trial.val_miou, -trial.number, trial) for trial in trials if trial.val_miou is not None]
    if not finished:
        raise DivergedError(f"the training loss was not finite in any of the {len(trials)} tuning trials")
    value, _, trial = max(finished, key=lambda f: f[:2])
    return trial, value


def tuning_of(trials: list[Trial]) -> Tuning:
    """Summarise the trials of a study, as stored in tune.json.

    Raises:
        DivergedError: no trial has a score.
    """
    chosen, value = best(trials)
    several = any(trial.val_mious is not None for trial in trials)
    trainings = [trial.val_mious or [] for trial in trials] if several else None
    return Tuning(
        schedule=chosen.schedule,
        trials=len(trials),
        default_val_miou=trials[0].val_miou,
        tuned_val_miou=value,
        trial_val_mious=[trial.val_miou for trial in trials],
        training_val_mious=trainings,
    )
