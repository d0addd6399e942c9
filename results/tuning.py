"""How the schedule of a run was chosen, as its record says it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, model_validator

from results.frozen import Frozen
from results.limits import MOST, Fraction, Text

Trained = Annotated[float, Field(ge=0, le=1)] | None  # val mIoU of a training; None if it diverged


class Tuning(Frozen):
    """How the schedule was chosen. Validation scores are used for selection and never reported as results."""

    later = MappingProxyType({"training_val_mious": None})

    schedule: dict[Text, float | Text] = Field(description="the schedule of this run; JSON text in a table")
    trials: int = Field(
        ge=0,
        le=MOST,
        description="number of trials, including the default schedule; 0: the default schedule, not tuned",
    )
    default_val_miou: Fraction = Field(
        description="validation mIoU of the default schedule (trial 0); null if it diverged or was not tried"
    )
    tuned_val_miou: Fraction = Field(
        description="validation mIoU of the best trial; biased upwards by the selection, not a result; null without trials"
    )
    trial_val_mious: list[Fraction] = Field(
        default_factory=list,
        description="validation mIoU of every trial, in order, the mean over its trainings; null if one diverged",
    )
    training_val_mious: list[list[Trained]] | None = Field(
        default=None,
        description="validation mIoU of every training of each trial; null for one that diverged, which ends its trial; null if "
        "each trial is one training; JSON text in a table",
    )

    @model_validator(mode="after")
    def _has_scores_if_it_has_trials(self) -> "Tuning":
        scored = self.tuned_val_miou is not None
        if scored != (self.trials > 0):
            raise ValueError("tuned_val_miou must be null without trials, and only then")
        if not scored and (self.default_val_miou is not None or self.trial_val_mious or self.training_val_mious):
            raise ValueError("trials is 0, so there must be no validation mIoU")
        if self.training_val_mious is not None and len(self.training_val_mious) != self.trials:
            raise ValueError("training_val_mious must have one list per trial")
        return self


def untuned(schedule: Mapping[str, float | str]) -> Tuning:
    """Return the tuning of a run with the default schedule: no trials, no validation scores."""
    return Tuning(schedule=dict(schedule), trials=0, default_val_miou=None, tuned_val_miou=None)
