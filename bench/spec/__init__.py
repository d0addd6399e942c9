"""The three frozen types of the method: Cell (what is compared), Protocol (what is held equal), Schedule (what is tuned).

Every new setting belongs to one of the three; which one is a question of method.
"""

import difflib
import functools
import math
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from bench.spec.parts import (
    MOST,
    MOST_STEPS,
    Augment,
    Loss,
    Normalisation,
    Precision,
    Schedule,
    SearchSpace,
    Size,
    Transfer,
)
from pretrain_sources.config_file import Number, Whole
from pretrain_sources.hashing import Identified, fingerprint
from results.frozen import Frozen
from results.marks import schedule_words
from results.schedule_names import TRIALS, TUNED, ScheduleKind

SMOKE = "~smoke"  # suffix of the name of a smoke protocol


class Cell(Frozen):
    """One comparison: a source on a backbone, finetuned on a target under a protocol."""

    later = MappingProxyType({"schedule": TUNED})
    target: str
    protocol: str
    source: str
    backbone: str
    train_frac: Number = Field(default=1.0, gt=0, le=1)
    schedule: ScheduleKind = Field(
        default=TUNED, description="tuned for the cell on val, or the protocol's default schedule, not tuned"
    )

    def __str__(self) -> str:
        part = "" if self.train_frac == 1 else f" at {self.train_frac:.0%}"
        return f"{self.source} x {self.backbone}{part}{schedule_words(self.schedule)}"


MOST_TRIALS = 10_000
IGNORED = "ignore"  # in a class map: pixels of these classes are excluded


class MappedClass(Frozen):
    """A class of a reduced class set, and the target's classes merged into it."""

    name: str = Field(min_length=1)
    of: tuple[str, ...] = Field(min_length=1)


class Protocol(Frozen, Identified):
    """Everything that is held equal between cells: named, versioned, never edited once results exist."""

    later = MappingProxyType(
        {"precision": "fp32", "transfer": "finetune", "poly_power": 0.9, "normalisation": None, "tune_replicates": 1}
    )
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]*$")
    description: str
    transfer: Transfer = Field(
        default="finetune",
        description="what is trained on the target. finetune: all; frozen: decoder and head; linear: a 1 x 1 convolution on the "
        "encoder's last four feature maps, in place of the decoder",
    )
    device: Literal["cpu", "cuda", "any"] = Field(
        description="processor type; any: a CUDA GPU where there is one, else the CPU"
    )
    precision: Precision = Field(
        default="fp32",
        description="fp32: without TF32; bf16: autocast, only on GPUs that compute it natively (Ampere and later)",
    )
    threads: Whole = Field(
        default=1, ge=1, le=1024, description="torch threads; they affect the results, so the protocol fixes them"
    )
    image_px: Size | None = Field(default=None, description="size to which frames are resized; null: native")
    crop_px: Size
    window_px: Size | None = Field(default=None, description="sliding window at test; null: the whole frame")
    stride_px: Size | None = None
    batch: Whole = Field(ge=1, le=65_536)
    finetune_steps: Whole = Field(ge=1, le=MOST_STEPS)
    pretrain_steps: Whole | None = Field(
        default=None, ge=0, le=MOST_STEPS, description="optimiser steps on a corpus, equal for all sources"
    )
    pretrain_epochs: Number | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="alternative to steps: passes over the corpus, so that a larger corpus gets more steps",
    )
    trials: Whole = Field(
        ge=1, le=MOST_TRIALS, description="tuning trials for each cell; trial 0 is the default schedule"
    )
    tune_replicates: Whole = Field(
        default=1,
        ge=1,
        le=1000,
        description="trainings of each trial, with other seeds; the mean of their validation mIoU picks the trial",
    )
    replicates: Whole = Field(ge=1, le=1000)
    class_map: tuple[MappedClass, ...] | None = Field(
        default=None,
        description="reduced class set: assigns every class of the target to a name or to 'ignore'; the first is background",
    )
    max_frames: Whole | None = Field(
        default=None,
        ge=1,
        le=2**31,
        description="maximum number of frames of each split and of the pool, evenly spaced; null: all",
    )
    select_on: Literal["val", "test"] = Field(
        default="val", description="'test' only to reproduce publications that do so; flagged everywhere"
    )
    ranked: bool = Field(default=True, description="false if training is too short to rank anything")
    beta_squared: Number = Field(default=1.0, gt=0, le=1e6, description="of the weighted F-measure")
    grad_clip: Number | None = Field(gt=0, le=MOST, description="largest norm of the gradient; null: not limited")
    poly_power: Number = Field(default=0.9, gt=0, le=10, description="of the poly decay")
    normalisation: Normalisation | None = Field(
        default=None, description="input normalisation of all sources; null: that of the weights"
    )
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    augment: Augment
    loss: Loss
    default: Schedule
    search: SearchSpace

    @field_validator("class_map")
    @classmethod
    def _is_a_class_set(cls, class_map: tuple[MappedClass, ...] | None) -> tuple[MappedClass, ...] | None:
        names = [mapped.name for mapped in class_map or ()]
        parts = [part for mapped in class_map or () for part in mapped.of]
        for kind, values in (("name", names), ("class", parts)):
            if duplicates := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"duplicate {kind} '{duplicates[0]}'")
        if odd := [n for n in names if n != IGNORED and difflib.get_close_matches(n.casefold(), [IGNORED], cutoff=0.8)]:
            raise ValueError(f"'{odd[0]}' would be a class; name it '{IGNORED}' to exclude its pixels")
        if class_map is not None and len(set(names) - {IGNORED}) < 2:
            raise ValueError("at least two classes must remain")
        return class_map

    @model_validator(mode="after")
    def _is_consistent(self) -> "Protocol":
        if self.precision == "bf16" and self.device != "cuda":
            raise ValueError(
                f"precision: bf16 needs device: cuda; a protocol with device: {self.device} computes in fp32"
            )
        if (self.pretrain_steps is None) == (self.pretrain_epochs is None):
            raise ValueError("set either pretrain_steps (equal steps) or pretrain_epochs (equal passes)")
        if not self.search.holds(self.default):
            raise ValueError("the default schedule is outside the search space")
        if (self.window_px is None) != (self.stride_px is None):
            raise ValueError("set both window_px and stride_px, or neither")
        if (
            self.window_px
            and self.stride_px
            and any(s > w for w, s in zip(self.window_px, self.stride_px, strict=True))
        ):
            raise ValueError("stride_px exceeds window_px: pixels between windows would have no prediction")
        return self

    def proposes(self, schedule: Schedule) -> bool:
        """Return whether the search can propose the schedule."""
        layers_fit = self.search.layer_decay is not None or schedule.layer_decay == self.default.layer_decay
        return layers_fit and self.search.holds(schedule)

    def with_trials(self, trials: int) -> "Protocol":
        """Return a copy with more tuning trials, whose name says so; a copy with as many is the protocol itself.

        Raises:
            ValueError: fewer trials than the protocol has, or too many.
        """
        if not self.trials <= trials <= MOST_TRIALS:
            raise ValueError(
                f"{self.name} has {self.trials} trials; choose {self.trials} to {MOST_TRIALS:,}, not {trials:,}"
            )
        return (
            self
            if trials == self.trials
            else self.model_copy(update={"name": f"{self.name}{TRIALS}{trials}", "trials": trials})
        )

    def smoke(self) -> "Protocol":
        """Return a copy with two steps, one trial and small crops, to test that everything runs. Never ranked."""
        little: dict[str, Any] = {
            "crop_px": tuple(min(side, 128) for side in self.crop_px),
            "finetune_steps": 2,
            **({"pretrain_epochs": 0.5} if self.pretrain_epochs else {"pretrain_steps": 2}),
            "trials": 1,
            "tune_replicates": 1,
            "replicates": 1,
            "max_frames": 4,
            "batch": 2,
        }
        if self.device == "cuda":
            little |= {"device": "any", "precision": "fp32"}
        return self.model_copy(update={"name": f"{self.name}{SMOKE}", "ranked": False, **little})

    def identity(self) -> dict[str, Any]:
        """Return the fields that affect a result: all but the description and the number of replicates."""
        return self.model_dump(mode="json", exclude={"description", "replicates"})

    @functools.cached_property
    def pretraining_hash(self) -> str:
        """Hash of the fields that affect pretraining; protocols that differ only elsewhere share pretrainings."""
        elsewhere = {"name", "finetune_steps", "trials", "class_map", "window_px", "stride_px", "select_on", "ranked"}
        elsewhere |= {"transfer", "tune_replicates"}
        elsewhere |= {"description", "replicates", "beta_squared", "search", "max_frames"}
        return fingerprint(self.model_dump(mode="json", exclude=elsewhere))

    def steps_on(self, images: int) -> int:
        """Return the steps of pretraining on a corpus of this many images."""
        if self.pretrain_epochs is not None:
            return max(1, math.ceil(self.pretrain_epochs * images / self.batch))
        return self.pretrain_steps or 0
