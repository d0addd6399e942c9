"""Recipes for pseudo-labels: the teacher that draws masks, and the rules that turn masks into a label map.

Data without code. The default is the authors' script (Chen & Bai, arXiv 2304.07969): nine masks in the order of
segment-anything's automatic generator, worse masks over better ones, 0 outside of masks. Unpublished settings (the SAM encoder,
its thresholds) are segment-anything's defaults.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pretrain_sources.config_file import Number, Whole
from safe_io.user_code import ENTRY_POINT

LATER = {"max_area_frac": 1.0}  # settings that are younger than the first labels
MAX_RANKS = 254  # label values 1..254: 0 is "no mask", 255 is ignore
META_MODELS = ("vit_h", "vit_l", "vit_b")
SAM_TINY = "sam_tiny"  # ships with this project: segment_anything's classes, not Meta's SAM
# model -> target -> its leak: results from its masks on that target are marked and never ranked
HAS_SEEN = {SAM_TINY: {"scenes": "its teacher sam-tiny was trained on this generator's own masks"}}

RankBy = Literal["predicted_iou", "stability", "area", "area_ascending", "random"]
Prompts = Literal["points", "boxes", "points+boxes"]
Unit = Annotated[Number, Field(ge=0, le=1)]
SHA256 = r"^[0-9a-f]{64}$"
_PART = r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*"  # of an id or a revision on the hub
MOST_PX = 2**31
MOST_BOXES = 65_536  # box prompts per image: the maximum of point prompts


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PromptedTeacher(_Settings):
    """A promptable model and the settings of segment_anything's SamAutomaticMaskGenerator, with its defaults."""

    prompts: Prompts = "points"
    points_per_side: Whole = Field(default=32, ge=1, le=256)
    points_per_batch: Whole = Field(
        default=64, ge=1, le=65_536, description="prompts decoded at a time; limits the memory"
    )
    pred_iou_thresh: Unit = Field(default=0.88, description="keep masks with a predicted IoU above this")
    stability_score_thresh: Unit = Field(default=0.95, description="keep masks with at least this stability")
    stability_score_offset: Number = Field(default=1.0, gt=0, le=1000)
    box_nms_thresh: Unit = 0.7
    crop_n_layers: Whole = Field(default=0, ge=0, le=4)
    crop_nms_thresh: Unit = 0.7
    crop_overlap_ratio: Unit = 512 / 1500
    crop_n_points_downscale_factor: Whole = Field(default=1, ge=1, le=256)
    min_mask_region_area: Whole = Field(
        default=0, ge=0, le=MOST_PX, description="remove smaller holes and islands, in pixels"
    )
    box_scales: tuple[Annotated[Number, Field(gt=0, le=1)], ...] = Field(
        default=(0.1, 0.2, 0.4),
        min_length=1,
        max_length=100,
        description="sides of box prompts, as shares of the frame's sides",
    )
    box_overlap: Number = Field(default=0.5, ge=0, lt=1, description="share by which neighbouring box prompts overlap")

    @model_validator(mode="after")
    def _has_few_boxes(self) -> Self:
        boxes = sum((1 / (scale * (1 - self.box_overlap))) ** 2 for scale in self.box_scales)
        if boxes > MOST_BOXES:
            raise ValueError(f"box_scales and box_overlap make {boxes:.3g} boxes per image; at most {MOST_BOXES}")
        return self


class _SamModel(_Settings):
    kind: Literal["sam"] = "sam"
    model: str = Field(
        default="vit_h",
        pattern=rf"^vit_[hlb]$|^{SAM_TINY}$|{ENTRY_POINT}",
        description="vit_h, vit_l, vit_b, sam_tiny (not Meta's), or module:function that returns a segment_anything Sam",
    )
    checkpoint: str | None = Field(
        default=None, description="file of tensors; null: the published (or shipped) weights of the model"
    )
    sha256: str | None = Field(default=None, pattern=SHA256, description="expected sha256 of the checkpoint")


class SamTeacher(PromptedTeacher, _SamModel):  # in names of variants, the last base's settings come first
    """Segment Anything through the segment_anything package."""

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.model not in (*META_MODELS, SAM_TINY) and self.checkpoint is None:
            raise ValueError(
                f"model {self.model} needs a checkpoint: only vit_h, vit_l, vit_b and sam_tiny have default weights"
            )
        return self


class TransformersTeacher(PromptedTeacher):
    """SAM or SAM 2 through the transformers package, from the Hugging Face hub or a folder of its format."""

    kind: Literal["transformers"] = "transformers"
    model: str = Field(
        max_length=200,
        pattern=rf"^{_PART}(/{_PART})?$",
        description="id on the hub, such as facebook/sam-vit-base; a folder of this name in --weights DIR comes first",
    )
    architecture: Literal["sam", "sam2"] = Field(
        default="sam", description="what the model must be: sam (SamModel), or sam2 (Sam2Model)"
    )
    revision: str | None = Field(
        default=None,
        max_length=200,
        pattern=rf"^{_PART}(/{_PART})*$",
        description="commit or tag on the hub; null: its branch main, which may change",
    )
    sha256: str | None = Field(default=None, pattern=SHA256, description="expected sha256 of model.safetensors")
    config_sha256: str | None = Field(
        default=None, pattern=SHA256, description="expected hash of config.json and preprocessor_config.json"
    )


class FelzenszwalbTeacher(_Settings):
    """Graph-based segments (Felzenszwalb & Huttenlocher, IJCV 2004) at several scales, without weights: a baseline for SAM."""

    kind: Literal["felzenszwalb"] = "felzenszwalb"
    scales: tuple[Annotated[Number, Field(gt=0, le=1e9)], ...] = Field(
        default=(200.0, 800.0),
        min_length=1,
        max_length=100,
        description="values of the paper's k; the defaults keep cars and roofs whole",
    )
    sigma: Number = Field(
        default=0.8, ge=0, le=100, description="of the Gaussian filter before segmentation, in pixels"
    )
    min_size: Whole = Field(default=50, ge=1, le=MOST_PX, description="merge smaller segments, in pixels")
    nms_thresh: Unit = Field(default=0.7, description="of two segments with a higher IoU, keep the better one")


class CocoTeacher(_Settings):
    """Ready-made masks: a COCO annotation file, or a folder of segment-anything's amg.py. Images are matched by name."""

    kind: Literal["coco"] = "coco"
    path: str = Field(
        min_length=1,
        description="a COCO file, or a folder of amg.py; looked for beside the card, then in --weights DIR",
    )
    sha256: str | None = Field(default=None, pattern=SHA256, description="expected sha256; null: do not check")
    oracle: bool = Field(
        default=False, description="people annotated these masks: an upper bound, which is marked and never ranked"
    )


class PythonTeacher(_Settings):
    """A user's own teacher: module:function of an installed module, which is called with `settings` and returns a teacher."""

    kind: Literal["python"] = "python"
    entry: str = Field(pattern=ENTRY_POINT)
    version: str = Field(description="part of the identity: change it whenever the code draws other masks")
    settings: dict[str, bool | int | float | str | None] = Field(default_factory=dict)


TeacherSettings = Annotated[
    SamTeacher | TransformersTeacher | FelzenszwalbTeacher | CocoTeacher | PythonTeacher, Field(discriminator="kind")
]


class Recipe(_Settings):
    """How a pseudo-label map is made. Label values: 0 no mask, 1..top_k the rank of a mask (1 if binary)."""

    teacher: TeacherSettings = Field(default_factory=SamTeacher)
    rank_by: RankBy = Field(
        default="predicted_iou", description="rank 1 is the mask with the highest value (area_ascending: the lowest)"
    )
    top_k: Whole = Field(default=9, ge=1, le=MAX_RANKS, description="number of masks to keep")
    overlap: Literal["worse_wins", "better_wins"] = Field(
        default="worse_wins",
        description="which of two overlapping masks gets a pixel; worse_wins is the authors' script",
    )
    uncovered: Literal["zero", "ignore"] = Field(
        default="zero", description="pixels outside of masks: class 0, or ignored"
    )
    min_area_px: Whole = Field(default=0, ge=0, le=MOST_PX, description="drop smaller masks before ranking")
    max_area_frac: Annotated[Number, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="drop masks that cover more of the frame before ranking; 1, the authors' script: keep all",
    )
    binary: bool = Field(default=False, description="give every mask class 1")

    @model_validator(mode="after")
    def _leaves_two_classes(self) -> "Recipe":
        if self.uncovered == "ignore" and (self.binary or self.top_k == 1):
            raise ValueError("there is only one class: uncovered 'ignore' needs at least two ranks")
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave younger settings out at their defaults, so that the identity of older labels stays."""
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if LATER.get(name, ...) != value}

    @property
    def num_classes(self) -> int:
        """Return the number of classes of these labels."""
        return 2 if self.binary else self.top_k + 1

    def labelling(self) -> dict[str, Any]:
        """Return the settings besides the teacher's. Variants that differ only in these share the teacher's masks."""
        return self.model_dump(mode="json", exclude={"teacher"})
