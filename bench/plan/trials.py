"""The trials of a study: a JSON line each, which is the truth; what a study chose is worked out from them. Loads no Optuna."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench import DivergedError
from results.record import Tuning
from results.store import read_json_lines


@dataclass(frozen=True)
class Trial:
    """One finished trial; `val_miou` is None where it diverged."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    number: int
    schedule: dict[str, float | str]
    val_miou: float | None


_TRIAL = TypeAdapter(Trial)


def read_trials(path: Path) -> list[Trial]:
    """The finished trials, in order; what follows a torn line, or one that is not the next trial, is left out."""
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
    """(trial, its validation mIoU) of the trial with the highest; of equals the first.

    Raises:
        DivergedError: there is none.
    """
    finished = [(trial.val_miou, -trial.number, trial) for trial in trials if trial.val_miou is not None]
    if not finished:
        raise DivergedError(f"the training loss was not finite in any of the {len(trials)} tuning trials")
    value, _, trial = max(finished, key=lambda f: f[:2])
    return trial, value


def tuning_of(trials: list[Trial]) -> Tuning:
    """What a study of these trials gives: tune.json holds it.

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
