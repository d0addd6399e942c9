"""How unlabelled thermal images become pseudo-labels: the teacher that draws masks, and how masks become a label map.

Frozen descriptions without code. The default is the authors' script (Chen & Bai, arXiv 2304.07969): nine masks in the order of
segment-anything's automatic generator, a worse mask over a better one, 0 where no mask is. What was not published (the SAM
encoder, its settings) stands at segment-anything's own defaults.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pretrain_sources.config_file import Number, Whole

MAX_RANKS = 254  # label values 1..254: 0 is "no mask", 255 is ignore
META_MODELS = ("vit_h", "vit_l", "vit_b")
SAM_TINY = "sam_tiny"  # ships with this project; in segment_anything's classes, and not Meta's SAM
# model -> target -> what it has seen of that target: what is learned from its masks there is marked, and never ranked
HAS_SEEN = {SAM_TINY: {"scenes": "its teacher sam-tiny was trained on this generator's own masks"}}
ENTRY_POINT = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"

RankBy = Literal["predicted_iou", "stability", "area", "area_ascending", "random"]
Prompts = Literal["points", "boxes", "points+boxes"]
Unit = Annotated[Number, Field(ge=0, le=1)]
MOST_PX = 2**31
MOST_BOXES = 65_536  # prompts on one image: as many as there are points at most


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SamTeacher(_Settings):
    """Segment Anything through the segment_anything package; defaults are those of its SamAutomaticMaskGenerator."""

    kind: Literal["sam"] = "sam"
    model: str = Field(
        default="vit_h",
        pattern=rf"^vit_[hlb]$|^{SAM_TINY}$|{ENTRY_POINT}",
        description="vit_h, vit_l, vit_b, sam_tiny (not Meta's), or module:function that returns a segment_anything Sam",
    )
    checkpoint: str | None = Field(
        default=None, description="a file of tensors; null: the model's own, published by Meta or shipped here"
    )
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="what the checkpoint's must be")
    prompts: Prompts = "points"
    points_per_side: Whole = Field(default=32, ge=1, le=256)
    points_per_batch: Whole = Field(
        default=64, ge=1, le=65_536, description="prompts decoded at a time; bounds the memory"
    )
    pred_iou_thresh: Unit = Field(default=0.88, description="masks with a predicted IoU above this are kept")
    stability_score_thresh: Unit = Field(default=0.95, description="masks at least this stable are kept")
    stability_score_offset: Number = Field(default=1.0, gt=0, le=1000)
    box_nms_thresh: Unit = 0.7
    crop_n_layers: Whole = Field(default=0, ge=0, le=4)
    crop_nms_thresh: Unit = 0.7
    crop_overlap_ratio: Unit = 512 / 1500
    crop_n_points_downscale_factor: Whole = Field(default=1, ge=1, le=256)
    min_mask_region_area: Whole = Field(
        default=0, ge=0, le=MOST_PX, description="smaller holes and islands are removed, in pixels"
    )
    box_scales: tuple[Annotated[Number, Field(gt=0, le=1)], ...] = Field(
        default=(0.1, 0.2, 0.4),
        min_length=1,
        max_length=100,
        description="sides of the prompting boxes, as shares of the frame's",
    )
    box_overlap: Number = Field(
        default=0.5, ge=0, lt=1, description="share by which neighbouring prompting boxes overlap"
    )

    @model_validator(mode="after")
    def _can_be_asked(self) -> "SamTeacher":
        boxes = sum((1 / (scale * (1 - self.box_overlap))) ** 2 for scale in self.box_scales)
        if boxes > MOST_BOXES:
            raise ValueError(f"box_scales and box_overlap make {boxes:.3g} boxes on an image; at most {MOST_BOXES}")
        if self.model not in (*META_MODELS, SAM_TINY) and self.checkpoint is None:
            raise ValueError(
                f"model {self.model} needs a checkpoint: only vit_h, vit_l, vit_b and sam_tiny have their own"
            )
        return self


class FelzenszwalbTeacher(_Settings):
    """Graph-based segments (Felzenszwalb & Huttenlocher, IJCV 2004) at several scales; no weights. Would any masks do?"""

    kind: Literal["felzenszwalb"] = "felzenszwalb"
    scales: tuple[Annotated[Number, Field(gt=0, le=1e9)], ...] = Field(
        default=(200.0, 800.0),
        min_length=1,
        max_length=100,
        description="of the paper's k; cars and roofs stay whole at these",
    )
    sigma: Number = Field(default=0.8, ge=0, le=100, description="of the Gaussian before segmenting, in pixels")
    min_size: Whole = Field(default=50, ge=1, le=MOST_PX, description="smaller segments are merged, in pixels")
    nms_thresh: Unit = Field(default=0.7, description="of two segments that overlap more (IoU), the better one is kept")


class PythonTeacher(_Settings):
    """A user's own: module:function of an installed module. Called with `settings`, it returns a teacher."""

    kind: Literal["python"] = "python"
    entry: str = Field(pattern=ENTRY_POINT)
    version: str = Field(description="change it whenever the code draws other masks: it is part of the identity")
    settings: dict[str, bool | int | float | str | None] = Field(default_factory=dict)


TeacherSettings = Annotated[SamTeacher | FelzenszwalbTeacher | PythonTeacher, Field(discriminator="kind")]


class Recipe(_Settings):
    """From an image to its pseudo-label map. Label values: 0 no mask, 1..top_k the rank of a mask (1 when binary)."""

    teacher: TeacherSettings = Field(default_factory=SamTeacher)
    rank_by: RankBy = Field(
        default="predicted_iou", description="masks with the highest get rank 1 (area_ascending: lowest)"
    )
    top_k: Whole = Field(default=9, ge=1, le=MAX_RANKS, description="masks that are kept")
    overlap: Literal["worse_wins", "better_wins"] = Field(
        default="worse_wins",
        description="which mask a pixel belongs to that two cover; worse_wins is the authors' script",
    )
    uncovered: Literal["zero", "ignore"] = Field(default="zero", description="pixels in no mask: class 0, or ignored")
    min_area_px: Whole = Field(default=0, ge=0, le=MOST_PX, description="smaller masks are left out before ranking")
    binary: bool = Field(default=False, description="every mask gets class 1")

    @model_validator(mode="after")
    def _leaves_two_classes(self) -> "Recipe":
        if self.uncovered == "ignore" and (self.binary or self.top_k == 1):
            raise ValueError("one class is nothing to learn: with uncovered 'ignore' there must be at least two ranks")
        return self

    @property
    def num_classes(self) -> int:
        """How many outputs a network needs for these labels."""
        return 2 if self.binary else self.top_k + 1

    def labelling(self) -> dict[str, Any]:
        """What shapes label maps besides the teacher: variants that differ in this alone share one pass of the teacher."""
        return self.model_dump(mode="json", exclude={"teacher"})
