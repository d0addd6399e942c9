"""The parts of a protocol: schedule and its search space, augmentation, loss, input normalisation."""

from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from pretrain_sources.config_file import Number, Whole
from results.frozen import Frozen

Side = Annotated[Whole, Field(ge=1, le=16_384)]
Size = tuple[Side, Side]  # height, width in pixels
Share = Annotated[Number, Field(ge=0, le=1)]
Factor = Annotated[Number, Field(gt=0, le=32)]
MOST = 3e38  # larger numbers overflow to infinity in float32
MOST_STEPS = 100_000_000  # of one training; guards against typing errors
Decay = Literal["poly", "cosine"]
Precision = Literal["fp32", "bf16"]
Transfer = Literal["finetune", "frozen", "linear"]


class Schedule(Frozen):
    """The settings that are tuned for each cell."""

    later = MappingProxyType({"layer_decay": 1.0})
    lr: Number = Field(gt=0, le=MOST, description="peak learning rate of decoder and head")
    encoder_lr_scale: Number = Field(gt=0, le=MOST, description="the encoder's learning rate as a multiple of lr")
    weight_decay: Number = Field(ge=0, le=MOST)
    warmup_frac: Number = Field(
        ge=0, lt=1, description="share of the steps over which the learning rate rises linearly"
    )
    decay: Decay = Field(description="poly: (1 - t)^0.9, or the protocol's poly_power; cosine: half a period")
    layer_decay: Number = Field(
        default=1.0,
        gt=0,
        le=1,
        description="of a plain ViT: each layer's learning rate as a multiple of that of the layer above; 1: all equal",
    )


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
    """The search space of schedules: one entry for each field of Schedule. layer_decay: null: that of the default schedule."""

    later = MappingProxyType({"layer_decay": None})
    lr: Range
    encoder_lr_scale: Range
    weight_decay: Range
    warmup_frac: Range
    decay: tuple[Decay, ...] = Field(min_length=1)
    layer_decay: Range | None = None

    @model_validator(mode="after")
    def _proposes_schedules(self) -> "SearchSpace":
        for end in ("low", "high"):
            values = {name: getattr(value, end) for name, value in self.ranges.items()}
            try:
                Schedule.model_validate({**values, "decay": self.decay[0]})
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise ValueError(f"{first['loc'][0]}.{end} {first['input']}: {first['msg']}") from error
        return self

    @property
    def ranges(self) -> dict[str, Range]:
        """The numbers that are searched, by field of Schedule."""
        return {name: value for name, value in self if isinstance(value, Range)}

    def holds(self, schedule: Schedule) -> bool:
        """Return whether the schedule lies in the search space."""
        values = schedule.model_dump()
        ranges = self.ranges
        return schedule.decay in self.decay and all(r.low <= values[name] <= r.high for name, r in ranges.items())


class Augment(Frozen):
    """Random augmentation of training frames, drawn at every step."""

    later = MappingProxyType({"scale_draw": "log-uniform", "most_of_one_class": 1.0, "photometric_distortion": False})
    scale: tuple[Factor, Factor] = Field(description="factor by which a frame is enlarged before the crop")
    scale_draw: Literal["log-uniform", "uniform"] = "log-uniform"
    most_of_one_class: Share = Field(
        default=1.0,
        description="a crop of which one class covers more is drawn again, ten times at most (mmsegmentation's cat_max_ratio)",
    )
    rare_crop_share: Share = Field(
        description="share of crops centred near a pixel of a uniformly drawn foreground class"
    )
    hflip: Share
    vflip: Share = 0
    brightness: Number = Field(ge=0, lt=1, description="gain jitter: factor in 1 +- this")
    contrast: Number = Field(ge=0, lt=1, description="contrast jitter: factor in 1 +- this")
    photometric_distortion: bool = Field(
        default=False,
        description="mmsegmentation's PhotoMetricDistortion, of which a grey image feels brightness (+- 32 of 255) and contrast "
        "(0.5 to 1.5), each in half of the crops",
    )

    @field_validator("scale")
    @classmethod
    def _is_ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("must be [smallest, largest]: the first number is larger than the second")
        return scale


class Loss(Frozen):
    """Cross-entropy plus Dice; class weights are computed from the pixels of the train split."""

    later = MappingProxyType({"auxiliary_weight": 0.0})
    dice_weight: Number = Field(default=1.0, ge=0, le=1000)
    dice_background: bool = Field(description="whether Dice includes class 0")
    class_weight_power: Number = Field(
        ge=0, le=10, description="weight = (pixels of the largest class / pixels of the class) ^ power"
    )
    class_weight_cap: Number = Field(ge=1, le=MOST, description="upper bound of the weights")
    auxiliary_weight: Number = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="of the same loss over a small head on the last feature map but one, which is left out at test",
    )


class Normalisation(Frozen):
    """Input normalisation, on 0..1."""

    mean: Number = Field(ge=0, le=1)
    std: Number = Field(gt=0, le=10)

    @property
    def colours(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and std of the three equal channels."""
        return (self.mean,) * 3, (self.std,) * 3
