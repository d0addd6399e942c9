"""Tensor names and shapes of our encoders in other libraries and in the original repositories.

Each table maps our name to theirs, so that exactly the encoder's tensors are looked up in a checkpoint. Our names here are
those of timm's models; for a MiT, those of transformers' SegformerModel in memory. Plain ViTs have a table of their own.
"""

from torch import Tensor

from backbones.layout_rules import Layout, Rules, qkv
from backbones.vit_layouts import VIT_FAMILIES


def _unfolded_rows(there: Tensor) -> Tensor:
    """Reorder (..., 4C) of mmsegmentation's Swin, whose `Unfold` is channel by channel and row by row, to our order.

    Ours is pixel by pixel and column by column. The inverse of `correct_unfold_*_order` in mmsegmentation's swin2mmseg.py.
    """
    outer = there.shape[:-1]
    pixels = there.reshape(*outer, -1, 4).transpose(-1, -2)
    return pixels[..., [0, 2, 1, 3], :].reshape(there.shape)


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

# timm merges pixels at the start of a stage, these at the end of the previous one
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
            *qkv("attention.self", "query", "key", "value"),
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
            *qkv("attention", "q_proj", "k_proj", "v_proj"),
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

# timm's architecture -> its layouts besides timm's own. torchvision's ResNet has timm's names.
FAMILIES = (
    (r"resnet(18|34|50|101|152)", RESNET),
    (r"convnext_(tiny|small|base|large|xlarge)", CONVNEXT),
    (r"swin_(tiny|small|base|large)_patch4_window\d+_\d+", SWIN),
    *VIT_FAMILIES,
)
