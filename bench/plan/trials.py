"""The trials of a study, one JSON line each; the chosen schedule is computed from them. Does not import Optuna."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench import DivergedError
from results.record import Tuning
from results.store import read_json_lines


@dataclass(frozen=True)
class Trial:
    """A finished trial; `val_miou` is None if it diverged."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    number: int
    schedule: dict[str, float | str]
    val_miou: float | None


_TRIAL = TypeAdapter(Trial)


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
    return Tuning(
        schedule=chosen.schedule,
        trials=len(trials),
        default_val_miou=trials[0].val_miou,
        tuned_val_miou=value,
        trial_val_mious=[trial.val_miou for trial in trials],
    )
