"""The content of a matrix file."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from pretrain_sources.config_file import Number, Whole
from results.frozen import Frozen
from results.schedule_names import TUNED, ScheduleKind

Grid = dict[str, dict[str, list[bool | int | float | str]]]  # source -> setting -> values


class MatrixFile(Frozen):
    """The content of a matrix file."""

    description: str = ""
    target: str
    protocol: str
    pool: Path | None = Field(
        default=None, description="folder of unlabelled images, relative to this file; null: the target's"
    )
    sources: tuple[str | Grid, ...] = Field(
        min_length=1,
        description="names, globs of shipped names, card files (.yaml), or sources with a grid of settings",
    )
    backbones: tuple[str, ...] = Field(min_length=1)
    schedules: tuple[ScheduleKind, ...] = Field(
        default=(TUNED,),
        min_length=1,
        description="tuned: chosen for each cell; default: also the protocol's default schedule, without tuning",
    )
    trials: Whole | None = Field(
        default=None, ge=1, description="more tuning trials than the protocol has; null: as many"
    )
    train_fracs: tuple[Annotated[Number, Field(gt=0, le=1)], ...] = Field(default=(1.0,), min_length=1)

    @field_validator("backbones", mode="before")
    @classmethod
    def _no_space_after_the_colon(cls, names: object) -> object:
        for name in names if isinstance(names, list) else []:
            if isinstance(name, dict) and len(name) == 1 and all(isinstance(one, str) for one in name.values()):
                raise ValueError(f"write {':'.join(map(str, *name.items()))}, without a space after the colon")
        return names
