"""The three frozen types of the method: Cell (what is compared), Protocol (what is held equal), Schedule (what is tuned).

Every new setting belongs to one of the three; which one is a question of method.
"""

import difflib
import functools
import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from pretrain_sources.config_file import Number, Whole
from pretrain_sources.hashing import Identified, fingerprint

Side = Annotated[Whole, Field(ge=1, le=16_384)]
Size = tuple[Side, Side]  # height, width in pixels
Share = Annotated[Number, Field(ge=0, le=1)]
Factor = Annotated[Number, Field(gt=0, le=32)]
MOST = 3e38  # larger numbers overflow to infinity in float32
MOST_STEPS = 100_000_000  # of one training; guards against typing errors
Decay = Literal["poly", "cosine"]
Precision = Literal["fp32", "bf16"]
SMOKE = "~smoke"  # suffix of the name of a smoke protocol


class Frozen(BaseModel):
    """A validated, immutable model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Cell(Frozen):
    """One comparison: a source on a backbone, finetuned on a target under a protocol."""

    target: str
    protocol: str
    source: str
    backbone: str
    train_frac: Number = Field(default=1.0, gt=0, le=1)

    def __str__(self) -> str:
        part = "" if self.train_frac == 1 else f" at {self.train_frac:.0%}"
        return f"{self.source} x {self.backbone}{part}"


class Schedule(Frozen):
    """The settings that are tuned for each cell."""

    lr: Number = Field(gt=0, le=MOST, description="peak learning rate of decoder and head")
    encoder_lr_scale: Number = Field(gt=0, le=MOST, description="the encoder's learning rate as a multiple of lr")
    weight_decay: Number = Field(ge=0, le=MOST)
    warmup_frac: Number = Field(
        ge=0, lt=1, description="share of the steps over which the learning rate rises linearly"
    )
    decay: Decay = Field(description="poly: (1 - t)^0.9; cosine: half a period")


class Range(Frozen):
    """A closed interval, searched on a linear or a logarithmic scale."""

    low: Number
    high: Number
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("low must not exceed high, and must be positive on a log scale")
        return self


class SearchSpace(Frozen):
    """The search space of schedules: one entry for each field of Schedule."""

    lr: Range
    encoder_lr_scale: Range
    weight_decay: Range
    warmup_frac: Range
    decay: tuple[Decay, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _proposes_schedules(self) -> "SearchSpace":
        for end in ("low", "high"):
            values = {name: getattr(value, end) for name, value in self if isinstance(value, Range)}
            try:
                Schedule.model_validate({**values, "decay": self.decay[0]})
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise ValueError(f"{first['loc'][0]}.{end} {first['input']}: {first['msg']}") from error
        return self

    def holds(self, schedule: Schedule) -> bool:
        """Return whether the schedule lies in the search space."""
        values = schedule.model_dump()
        ranges = {name: value for name, value in self if isinstance(value, Range)}
        return schedule.decay in self.decay and all(r.low <= values[name] <= r.high for name, r in ranges.items())


class Augment(Frozen):
    """Random augmentation of training frames, drawn at every step."""

    scale: tuple[Factor, Factor] = Field(description="factor by which a frame is enlarged before the crop, log-uniform")
    rare_crop_share: Share = Field(
        description="share of crops centred near a pixel of a uniformly drawn foreground class"
    )
    hflip: Share
    vflip: Share = 0
    brightness: Number = Field(ge=0, lt=1, description="gain jitter: factor in 1 +- this")
    contrast: Number = Field(ge=0, lt=1, description="contrast jitter: factor in 1 +- this")

    @field_validator("scale")
    @classmethod
    def _is_ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("must be [smallest, largest]: the first number is larger than the second")
        return scale


class Loss(Frozen):
    """Cross-entropy plus Dice; class weights are computed from the pixels of the train split."""

    dice_weight: Number = Field(default=1.0, ge=0, le=1000)
    dice_background: bool = Field(description="whether Dice includes class 0")
    class_weight_power: Number = Field(
        ge=0, le=10, description="weight = (pixels of the largest class / pixels of the class) ^ power"
    )
    class_weight_cap: Number = Field(ge=1, le=MOST, description="upper bound of the weights")


IGNORED = "ignore"  # in a class map: pixels of these classes are excluded


class MappedClass(Frozen):
    """A class of a reduced class set, and the target's classes merged into it."""

    name: str = Field(min_length=1)
    of: tuple[str, ...] = Field(min_length=1)


# Fields that are younger than the first results: at their defaults they are no part of a protocol's identity and records.
LATER = {"precision": "fp32"}


class Protocol(Frozen, Identified):
    """Everything that is held equal between cells: named, versioned, never edited once results exist."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]*$")
    description: str
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
    trials: Whole = Field(ge=1, le=10_000, description="tuning trials for each cell; trial 0 is the default schedule")
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
    grad_clip: Number = Field(gt=0, le=MOST, description="largest norm of the gradient")
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

    def smoke(self) -> "Protocol":
        """Return a copy with two steps, one trial and small crops, to test that everything runs. Never ranked."""
        little: dict[str, Any] = {
            "crop_px": tuple(min(side, 128) for side in self.crop_px),
            "finetune_steps": 2,
            **({"pretrain_epochs": 0.5} if self.pretrain_epochs else {"pretrain_steps": 2}),
            "trials": 1,
            "replicates": 1,
            "max_frames": 4,
            "batch": 2,
        }
        if self.device == "cuda":
            little |= {"device": "any", "precision": "fp32"}
        return self.model_copy(update={"name": f"{self.name}{SMOKE}", "ranked": False, **little})

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if LATER.get(name, ...) != value}

    def identity(self) -> dict[str, Any]:
        """Return the fields that affect a result: all but the description and the number of replicates."""
        return self.model_dump(mode="json", exclude={"description", "replicates"})

    @functools.cached_property
    def pretraining_hash(self) -> str:
        """Hash of the fields that affect pretraining; protocols that differ only elsewhere share pretrainings."""
        elsewhere = {"name", "finetune_steps", "trials", "class_map", "window_px", "stride_px", "select_on", "ranked"}
        elsewhere |= {"description", "replicates", "beta_squared", "search", "max_frames"}
        return fingerprint(self.model_dump(mode="json", exclude=elsewhere))

    def steps_on(self, images: int) -> int:
        """Return the steps of pretraining on a corpus of this many images."""
        if self.pretrain_epochs is not None:
            return max(1, math.ceil(self.pretrain_epochs * images / self.batch))
        return self.pretrain_steps or 0
