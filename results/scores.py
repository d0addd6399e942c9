"""The scores of a run, as its record holds them."""

from types import MappingProxyType

from pydantic import Field

from results.frozen import Frozen
from results.limits import MOST, Fraction


class Scores(Frozen):
    """Test scores of a run; all of them can be recomputed from the evidence."""

    later = MappingProxyType(dict.fromkeys(("class_precision", "class_recall", "class_area_ratio")))

    miou: float = Field(
        ge=0, le=1, description="mean IoU over the classes that occur in the test truth, background included"
    )
    miou_no_background: Fraction = Field(ge=0, le=1, description="mIoU without class 0; null if only class 0 occurs")
    weighted_f: float = Field(
        ge=0,
        le=1,
        description="weighted F-measure: mean per class over the test images that contain it, then mean over classes",
    )
    class_iou: list[Fraction] = Field(
        description="IoU per class, in the order of `classes`; null if absent from the test truth"
    )
    class_weighted_f: list[Fraction] = Field(
        description="weighted F-measure per class; null if absent from the test truth"
    )
    class_false_presence: list[Fraction] = Field(
        description="share of the test images without the class in which it was predicted; null if every image contains it"
    )
    class_precision: list[Fraction] | None = Field(
        default=None,
        description="share of the pixels predicted as the class that are of it; null if it was never predicted. No older record "
        "has this list or the next two: `results.class_scores.class_means` takes them from the evidence",
    )
    class_recall: list[Fraction] | None = Field(
        default=None,
        description="share of the pixels of the class that were predicted as it; null if absent from the test truth",
    )
    class_area_ratio: list[Fraction] | None = Field(
        default=None,
        description="pixels predicted as the class / pixels of the class; null if absent from the test truth",
    )
    test_images: int = Field(ge=1, le=MOST, description="number of test images scored")

    @property
    def per_class(self) -> list[list[Fraction]]:
        """Lists with a value for each class."""
        return [values for name, values in self if name.startswith("class_") and values is not None]

    def agrees_with(self, other: "Scores") -> bool:
        """Return whether two are equal in all that both have; older records have less."""
        mine, theirs = self.model_dump(), other.model_dump()
        return all(mine[name] == theirs[name] for name in mine.keys() & theirs.keys())
