"""Checkpoints of plain ViTs with more tensors than the encoder: dropped if they change nothing, else refused."""

import re

import pytest
import torch
from small_vits import WIDTH, found
from test_layouts import Tensors, same
from test_vit_layouts import facebooks_dinov2, facebooks_dinov3, random, renamed

from backbones.checkpoint_file import CheckpointError
from backbones.encoder_layouts import encoder_of
from backbones.fitting import fit


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_a_dropped_mask_token_is_recorded() -> None:
    notes = fit(facebooks_dinov2("vit_wee_patch14_dinov2"), found("fpn:vit_wee_patch14_dinov2")).notes
    assert "3 tensors dropped, not part of the encoder: norm.weight, norm.bias, mask_token" in notes


def mae(tensors: Tensors) -> Tensors:
    """models_mae.py of facebookresearch/mae, which PAD and UNIP start from: timm's names, and a decoder."""
    blocks = {f"decoder_{key}": torch.randn(8) for key in tensors if key.startswith("blocks.")}
    decoder = {name: torch.randn(1, 17, 16) for name in ("decoder_pos_embed", "mask_token")}
    return (
        tensors
        | blocks
        | decoder
        | {"decoder_embed.weight": torch.randn(16, WIDTH), "decoder_pred.bias": torch.randn(9)}
    )


def test_mae_and_its_descendants_have_timms_names() -> None:
    tensors, spec = random("vit_wee_patch16_64"), found("upernet:vit_wee_patch16_64")
    expected = fit(tensors, spec).tensors
    fitted = fit(mae(tensors), spec)
    assert "layout: timm's" in fitted.notes
    assert same(fitted.tensors, expected)
    assert any(re.match(r"\d+ tensors dropped, .*decoder_blocks", note) for note in fitted.notes)
    finetuned = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    neck = {"backbone.fpn1.0.weight": torch.randn(4), "decode_head.conv_seg.bias": torch.randn(4)}
    assert same(fit(finetuned | neck, spec).tensors, expected)


def test_mmpretrains_mae_which_pad_starts_from() -> None:
    """Against PAD's published converter (pre-training/mae/change_mae_mm.py), done backwards; not run against the library."""
    tensors, spec = random("vit_wee_patch16_64"), found("upernet:vit_wee_patch16_64")
    theirs = renamed(
        tensors,
        (r"^blocks", "layers"),
        (r"mlp\.fc1", "ffn.layers.0.0"),
        (r"mlp\.fc2", "ffn.layers.1"),
        (r"norm([12])", r"ln\1"),
        (r"^norm\.", "ln1."),
        (r"patch_embed\.proj", "patch_embed.projection"),
        (r"^", "backbone."),
    )
    fitted = fit(theirs | {"neck.decoder_blocks.0.ln1.weight": torch.randn(8), "neck.mask_token": torch.randn(8)}, spec)
    assert "layout: mmpretrain's ViT" in fitted.notes
    assert same(fitted.tensors, fit(tensors, spec).tensors)


@pytest.mark.parametrize(
    ("extra", "whose"),
    [
        ("blocks.0.attn.relative_position_bias_table", "UNIP's and PAD's segmentation networks"),
        ("rel_pos_bias.relative_position_bias_table", "BEiT's"),
        ("blocks.0.gamma_1", "UNIP's and PAD's segmentation networks"),
        ("blocks.0.adaptmlp.down_proj.weight", "PAD's adapters"),
        ("blocks.0.scalar_pred.weight", "PAD's adapters"),
        ("blocks.0.ls1.gamma", "DINOv2's"),
        ("norm_pre.weight", "CLIP's"),
        ("storage_tokens", "DINOv3's"),
        ("blocks.4.attn.qkv.weight", "a deeper sibling's"),
    ],
)
def test_tensors_that_change_the_function_are_refused(extra: str, whose: str) -> None:
    tensors = random("vit_wee_patch16_64") | {extra: torch.ones(1, 4, WIDTH)}
    with pytest.raises(CheckpointError, match=f"another architecture.*does not have, {re.escape(extra)}"):
        fit(tensors, found("upernet:vit_wee_patch16_64"))


def test_infmae_is_no_vit() -> None:
    """models_infmae_skip4.py: convolutions before the blocks, and patches of 4, 2 and 2 px one after the other."""
    blocks = {key.replace("blocks.", "blocks3."): tensor for key, tensor in random("vit_wee_patch16_64").items()}
    convolutions = {
        "blocks1.0.conv1.weight": torch.randn(8, 8, 1, 1),
        "patch_embed1.proj.weight": torch.randn(8, 3, 4, 4),
    }
    fitted = fit(blocks | convolutions, found("upernet:vit_wee_patch16_64"))
    assert any(re.match(r"48 tensors missing, in this layout blocks\.0", note) for note in fitted.notes)


def test_biases_of_zeros_are_left_out_and_others_are_not() -> None:
    """Some of DINOv3's models were trained with biases that ended as zeros; timm has them without."""
    theirs, spec = facebooks_dinov3("vit_wee_patch16_dinov3"), found("upernet:vit_wee_patch16_dinov3")
    assert fit(theirs, spec).tensors.keys() == encoder_of(spec).tensors.keys()
    theirs["blocks.2.attn.qkv.bias"][0] = 0.1
    with pytest.raises(CheckpointError, match=r"another architecture.*does not have, blocks\.2\.attn\.qkv\.bias"):
        fit(theirs, spec)


def test_keys_with_a_bias_are_refused_unless_it_is_masked() -> None:
    theirs, spec = facebooks_dinov3("vit_wee_patch16_dinov3_qkvb"), found("fpn:vit_wee_patch16_dinov3_qkvb")
    expected = fit(theirs, spec).tensors
    theirs["blocks.1.attn.qkv.bias"][WIDTH] = 0.1
    assert same(fit(theirs, spec).tensors, expected)
    bare = {name: tensor for name, tensor in theirs.items() if not name.endswith("bias_mask")}
    with pytest.raises(CheckpointError, match=r"blocks\.1\.attn\.q_bias cannot be made from .*: the keys have a bias"):
        fit(bare, spec)
    bare["blocks.1.attn.qkv.bias"][WIDTH] = 0
    fitted = fit(bare, spec)
    assert "layout: Facebook's DINOv3 without masks of biases" in fitted.notes
    assert same(fitted.tensors, expected)


def test_rotary_periods_of_another_base_are_refused() -> None:
    theirs, spec = facebooks_dinov3("vit_wee_patch16_dinov3"), found("upernet:vit_wee_patch16_dinov3")
    theirs["rope_embed.periods"] = theirs["rope_embed.periods"] ** 2
    with pytest.raises(CheckpointError, match=r"does not have, rope_embed\.periods"):
        fit(theirs, spec)


def test_two_towers_for_images_are_still_refused() -> None:
    tensors = random("vit_wee_patch16_clip_64")
    both = {f"{tower}.{name}": tensor for tower in ("visual", "momentum") for name, tensor in tensors.items()}
    with pytest.raises(CheckpointError, match=r"2 encoders, behind the prefixes 'visual\.', 'momentum\.'"):
        fit(both, found("upernet:vit_wee_patch16_clip_64"))
