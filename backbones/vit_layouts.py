"""Tensor names and shapes of timm's plain ViTs in other libraries and in the original repositories.

timm has the names of the original repositories for ViT, DeiT, MAE, PAD, UNIP and DINOv2 without registers. Its MLPs with a gate,
in the largest DINOv2 and some of DINOv3, have names of their own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from backbones.layout_rules import Changes, Joins, Layout, Rules, Unused, qkv

_TOKEN_TRANSFORMERS: Rules = ((r"^cls_token$", "embeddings.cls_token"),)
_EMBEDDINGS_TRANSFORMERS: Rules = (
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
)
_VIT_TRANSFORMERS: Rules = (
    *_TOKEN_TRANSFORMERS,
    *_EMBEDDINGS_TRANSFORMERS,
    (r"norm1\.", "layernorm_before."),
    (r"norm2\.", "layernorm_after."),
)
_VIT_MM: Rules = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.", "layers."),
    (r"norm([12])\.", r"ln\1."),
    (r"mlp\.fc1\.", "ffn.layers.0.0."),
    (r"mlp\.fc2\.", "ffn.layers.1."),
)
VIT = (
    Layout("mmpretrain's ViT", _VIT_MM),
    Layout(
        "mmsegmentation's ViT",
        (*_VIT_MM, (r"attn\.qkv\.", "attn.attn.in_proj_"), (r"attn\.proj\.", "attn.attn.out_proj.")),
    ),
    Layout(
        "transformers' ViT, as on disk",
        (
            *_VIT_TRANSFORMERS,
            (r"^blocks\.", "encoder.layer."),
            *qkv("attention.attention", "query", "key", "value"),
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
            *qkv("attention", "q_proj", "k_proj", "v_proj"),
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

CLIP = (
    Layout(
        "OpenAI's CLIP",
        (
            (r"^cls_token$", "class_embedding"),
            (r"^pos_embed$", "positional_embedding"),
            (r"^patch_embed\.proj\.", "conv1."),
            (r"^norm_pre\.", "ln_pre."),
            (r"^blocks\.", "transformer.resblocks."),
            (r"norm([12])\.", r"ln_\1."),
            (r"attn\.qkv\.", "attn.in_proj_"),
            (r"attn\.proj\.", "attn.out_proj."),
            (r"mlp\.fc1\.", "mlp.c_fc."),
            (r"mlp\.fc2\.", "mlp.c_proj."),
        ),
        (
            (r"^cls_token$", lambda vector: vector.reshape(1, 1, -1)),
            (r"^pos_embed$", lambda rows: rows[None]),
        ),
    ),
    Layout(
        "transformers' CLIP",
        (
            (r"^cls_token$", "embeddings.class_embedding"),
            (r"^pos_embed$", "embeddings.position_embedding.weight"),
            (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
            (r"^norm_pre\.", "pre_layrnorm."),
            (r"^blocks\.", "encoder.layers."),
            (r"norm([12])\.", r"layer_norm\1."),
            *qkv("self_attn", "q_proj", "k_proj", "v_proj"),
            (r"attn\.proj\.", "self_attn.out_proj."),
        ),
        (
            (r"^cls_token$", lambda vector: vector.reshape(1, 1, -1)),
            (r"^pos_embed$", lambda rows: rows[None]),
        ),
    ),
)


# timm adds the class token's position embedding to the token, where there are registers, which have none
_WITHOUT_ITS_ROW: Changes = ((r"^pos_embed$", lambda rows: rows[:, 1:]),)
_WITH_ITS_ROW: Joins = ((r"^cls_token$", lambda both: both[0] + both[1][:, :1]),)


def _dinov2(registers: bool, gated: bool) -> tuple[Layout, ...]:
    """Return the layouts of DINOv2 besides timm's. gated: its MLPs have a gate."""
    facebooks: Rules = ()
    tokens = _TOKEN_TRANSFORMERS
    changes, joins = (_WITHOUT_ITS_ROW, _WITH_ITS_ROW) if registers else ((), ())
    if registers:
        facebooks = ((r"^reg_token$", "register_tokens"), (r"^cls_token$", "{cls_token,pos_embed}"))
        tokens = (
            (r"^reg_token$", "embeddings.register_tokens"),
            (r"^cls_token$", "embeddings.{cls_token,position_embeddings}"),
        )
    blocks: Rules = ((r"^blocks\.", "encoder.layer."), (r"ls([12])\.gamma$", r"layer_scale\1.lambda1"))
    theirs: Rules = (*tokens, *_EMBEDDINGS_TRANSFORMERS, *blocks)
    on_disk: Rules = (
        *qkv("attention.attention", "query", "key", "value"),
        (r"attn\.proj\.", "attention.output.dense."),
    )
    in_memory: Rules = (*qkv("attention", "q_proj", "k_proj", "v_proj"), (r"attn\.proj\.", "attention.o_proj."))
    if gated:
        facebooks = (*facebooks, (r"mlp\.fc1\.", "mlp.w12."), (r"mlp\.fc2\.", "mlp.w3."))
        on_disk = (*on_disk, (r"mlp\.fc1\.", "mlp.weights_in."), (r"mlp\.fc2\.", "mlp.weights_out."))
        in_memory = (*in_memory, (r"mlp\.fc1\.", "mlp.{gate_proj,up_proj}."), (r"mlp\.fc2\.", "mlp.down_proj."))
    return (
        *((Layout("Facebook's DINOv2", facebooks, changes, joins),) if facebooks else ()),
        Layout("transformers' DINOv2, as on disk", (*theirs, *on_disk), changes, joins),
        Layout("transformers' DINOv2, as in memory", (*theirs, *in_memory), changes, joins),
    )


def _third(index: int) -> Callable[[Tensor], Tensor]:
    """Return the function that takes the bias of queries (0) or values (2) out of a joint one, whose keys have none."""

    def take(bias: Tensor) -> Tensor:
        thirds = bias.chunk(3)
        if thirds[1].any():
            raise RuntimeError("the keys have a bias and this encoder's have none")
        return thirds[index]

    return take


def _has_base_100(periods: Tensor) -> bool:
    """Return whether rotary periods are those of all of timm's DINOv3, which computes them; the files have bfloat16."""
    count = len(periods)
    return torch.allclose(periods.float(), 100 ** (torch.arange(count) / count), rtol=0.01)


def _dinov3(gated: bool) -> tuple[Layout, ...]:
    """Return the layouts of DINOv3 besides timm's. gated: its MLPs have a gate."""
    facebooks: Rules = ((r"^reg_token$", "storage_tokens"), (r"gamma_([12])$", r"ls\1.gamma"))
    theirs: Rules = (
        (r"^cls_token$", "embeddings.cls_token"),
        (r"^reg_token$", "embeddings.register_tokens"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
        (r"gamma_([12])$", r"layer_scale\1.lambda1"),
        (r"attn\.([qv])_bias$", r"attention.\1_proj.bias"),
        *qkv("attention", "q_proj", "k_proj", "v_proj"),
        (r"attn\.proj\.", "attention.o_proj."),
        (r"mlp\.fc2\.", "mlp.down_proj."),
    )
    if gated:
        facebooks += ((r"mlp\.fc1_g\.", "mlp.w1."), (r"mlp\.fc1_x\.", "mlp.w2."), (r"mlp\.fc2\.", "mlp.w3."))
        theirs += ((r"mlp\.fc1_g\.", "mlp.gate_proj."), (r"mlp\.fc1_x\.", "mlp.up_proj."))
    else:
        theirs += ((r"mlp\.fc1\.", "mlp.up_proj."),)
    biases: Changes = ((r"attn\.q_bias$", _third(0)), (r"attn\.v_bias$", _third(2)))
    masked: Joins = ((r"attn\.[qv]_bias$", lambda both: both[0] * both[1]),)
    unused: Unused = ((r"rope_embed\.periods", _has_base_100), (r".*\.bias_mask", lambda mask: True))
    return (
        Layout(
            "Facebook's DINOv3",
            (*facebooks, (r"attn\.[qv]_bias$", "attn.qkv.{bias,bias_mask}")),
            biases,
            masked,
            unused,
        ),
        Layout(
            "Facebook's DINOv3 without masks of biases",
            (*facebooks, (r"attn\.[qv]_bias$", "attn.qkv.bias")),
            biases,
            unused=unused,
        ),
        Layout("transformers' DINOv3, as on disk", (*theirs, (r"^blocks\.", "layer."))),
        Layout("transformers' DINOv3, as in memory", (*theirs, (r"^blocks\.", "model.layer."))),
    )


# timm's architecture -> its layouts besides timm's own; the first match counts
VIT_FAMILIES = (
    (r"(vit|deit)_[a-z]+_patch\d+_\d+", VIT),
    (r"vit_[a-z]+_patch\d+_clip(_quickgelu)?_\d+", CLIP),
    (r"vit_[a-z]*giant_patch14_dinov2", _dinov2(registers=False, gated=True)),
    (r"vit_[a-z]*giant_patch14_reg4_dinov2", _dinov2(registers=True, gated=True)),
    (r"vit_[a-z]+_patch14_dinov2", _dinov2(registers=False, gated=False)),
    (r"vit_[a-z]+_patch14_reg4_dinov2", _dinov2(registers=True, gated=False)),
    (r"vit_([a-z]+_plus|7b)_patch16_dinov3(_qkvb)?", _dinov3(gated=True)),
    (r"vit_[a-z]+_patch16_dinov3(_qkvb)?", _dinov3(gated=False)),
)
