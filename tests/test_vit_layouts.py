"""Checkpoints of plain ViTs give the same features in our encoders.

As in test_layouts: by numbers against the other library where it is installed; elsewhere against timm's published converter
(`checkpoint_filter_fn`), fed with tensors under the names of the original repository.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import small_vits
import timm
import torch
from small_vits import DEPTH, HEADS, WIDTH, found
from test_layouts import Model, Tensors, as_map, assert_same_features, in_memory, on_disk, same, stirred
from torch import Tensor, nn

from backbones.encoder_layouts import _timm_layouts, encoder_of
from backbones.fitting import fit
from backbones.layout_rules import Layout

SMALL = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
MLP = {**SMALL, "intermediate_size": 4 * WIDTH}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def hf_mae() -> Model:
    """All patches are shown, in their own order."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": DEPTH}
    model = ViTMAEForPreTraining(ViTMAEConfig(image_size=64, mask_ratio=0.0, **MLP, **decoder))
    model.vit.layernorm = nn.Identity()
    order = torch.arange(16.0)[None]
    return model, lambda m, x: as_map(m.vit(x, noise=order).last_hidden_state)


def hf_dinov2(gated: bool) -> Callable[[], Model]:
    def make() -> Model:
        from transformers import Dinov2Config, Dinov2Model

        model = Dinov2Model(Dinov2Config(image_size=70, mlp_ratio=4, use_swiglu_ffn=gated, **SMALL))
        model.layernorm = nn.Identity()
        return model, lambda m, x: as_map(m(x).last_hidden_state)

    return make


def hf_dinov2_with_registers(gated: bool) -> Callable[[], Model]:
    def make() -> Model:
        from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

        config = Dinov2WithRegistersConfig(
            image_size=70, patch_size=14, mlp_ratio=4, num_register_tokens=4, use_swiglu_ffn=gated, **SMALL
        )
        model = Dinov2WithRegistersModel(config)
        model.layernorm = nn.Identity()
        return model, lambda m, x: as_map(m(x).last_hidden_state)

    return make


def hf_dinov3(gated: bool) -> Callable[[], Model]:
    def make() -> Model:
        from transformers import DINOv3ViTConfig, DINOv3ViTModel

        act = "silu" if gated else "gelu"
        model = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, use_gated_mlp=gated, hidden_act=act, **MLP))
        model.norm = nn.Identity()
        return model, lambda m, x: as_map(m(x).last_hidden_state)

    return make


def clip_tower(model: nn.Module, images: Tensor) -> Tensor:
    last = model.get_submodule("vision_model")(images, output_hidden_states=True).hidden_states[
        -1
    ]  # before the final norm
    return as_map(last)


def hf_clip() -> Model:
    """Both towers: the one for texts has the same blocks, and as many."""
    from transformers import CLIPConfig, CLIPModel

    text = {**MLP, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return CLIPModel(
        CLIPConfig(vision_config={**MLP, "image_size": 64, "patch_size": 16}, text_config=text)
    ), clip_tower


def hf_clip_alone() -> Model:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    model = CLIPVisionModel(CLIPVisionConfig(image_size=64, patch_size=16, **MLP))
    return model, lambda m, x: as_map(m(x, output_hidden_states=True).hidden_states[-1])


DISK, MEMORY = "transformers' {}, as on disk", "transformers' {}, as in memory"
BY_NUMBERS = [
    ("vit_wee_patch16_64", hf_mae, {on_disk: DISK.format("ViT"), in_memory: MEMORY.format("ViT")}),
    ("vit_wee_patch16_clip_quickgelu_64", hf_clip, {on_disk: "transformers' CLIP"}),
    ("vit_wee_patch16_clip_quickgelu_64", hf_clip_alone, {in_memory: "transformers' CLIP"}),
]
for _size, _gated in (("wee", False), ("weegiant", True)):
    _saved = {on_disk: DISK.format("DINOv2"), in_memory: MEMORY.format("DINOv2")}
    BY_NUMBERS.append((f"vit_{_size}_patch14_dinov2", hf_dinov2(_gated), _saved))
    BY_NUMBERS.append((f"vit_{_size}_patch14_reg4_dinov2", hf_dinov2_with_registers(_gated), _saved))
for _size, _gated in (("wee", False), ("wee_plus", True)):
    _saved = {on_disk: DISK.format("DINOv3"), in_memory: MEMORY.format("DINOv3")}
    BY_NUMBERS.append((f"vit_{_size}_patch16_dinov3_qkvb", hf_dinov3(_gated), _saved))


@pytest.mark.parametrize(
    ("name", "make", "saved"), BY_NUMBERS, ids=[f"{row[0]}-{i}" for i, row in enumerate(BY_NUMBERS)]
)
@torch.no_grad()
def test_converted_weights_give_the_same_features(
    name: str,
    make: Callable[[], Model],
    saved: Mapping[Callable[[nn.Module, Path], Tensors], str],
    tmp_path: Path,
) -> None:
    assert_same_features(found(f"upernet:{name}"), make, saved, 5 * 14 if "patch14" in name else 64, tmp_path)


def random(name: str) -> Tensors:
    """Return random values of timm's model under timm's names."""
    return dict(stirred(timm.create_model(name, num_classes=0)).state_dict())


def renamed(tensors: Tensors, *pairs: tuple[str, str]) -> Tensors:
    moved = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in pairs:
            new = re.sub(pattern, replacement, new)
        moved[new] = tensor
    return moved


def facebooks_dinov2(name: str) -> Tensors:
    """dinov2/models/vision_transformer.py and its layers; with registers, positions have a row for the class token."""
    theirs = random(name)
    if "giant" in name:
        theirs = renamed(theirs, (r"mlp\.fc1", "mlp.w12"), (r"mlp\.fc2", "mlp.w3"))
    if "reg4" in name:
        theirs["register_tokens"] = theirs.pop("reg_token")
        theirs["pos_embed"] = torch.cat([torch.randn(1, 1, WIDTH), theirs["pos_embed"]], 1)
    return theirs | {"mask_token": torch.randn(1, WIDTH)}


def facebooks_dinov3(name: str) -> Tensors:
    """dinov3/models/vision_transformer.py and its layers: joint biases with a mask that takes those of the keys away."""
    theirs = renamed(
        random(name),
        (r"gamma_([12])$", r"ls\1.gamma"),
        (r"reg_token", "storage_tokens"),
        (r"fc1_g", "w1"),
        (r"fc1_x", "w2"),
        *(((r"mlp\.fc2", "mlp.w3"),) if "plus" in name else ()),
    )
    ones, zeros = torch.ones(WIDTH), torch.zeros(WIDTH)
    for i in range(DEPTH):
        joint = [theirs.pop(f"blocks.{i}.attn.{which}_bias", zeros) for which in "qv"]
        theirs[f"blocks.{i}.attn.qkv.bias"] = torch.cat([joint[0], torch.zeros(WIDTH), joint[1]])
        theirs[f"blocks.{i}.attn.qkv.bias_mask"] = torch.cat([ones, zeros, ones])
    periods = 100 ** (torch.arange(WIDTH // HEADS // 4) / (WIDTH // HEADS // 4))
    return theirs | {"mask_token": torch.randn(1, WIDTH), "rope_embed.periods": periods.bfloat16()}


def openais(name: str) -> Tensors:
    """clip/model.py: two towers with the same names of blocks, in half precision."""
    tower = renamed(
        random(name),
        (r"^patch_embed\.proj", "conv1"),
        (r"^pos_embed$", "positional_embedding"),
        (r"^cls_token$", "class_embedding"),
        (r"^norm_pre", "ln_pre"),
        (r"^norm\.", "ln_post."),
        (r"^blocks", "transformer.resblocks"),
        (r"norm([12])", r"ln_\1"),
        (r"qkv\.", "in_proj_"),
        (r"attn\.proj", "attn.out_proj"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
    )
    tower["class_embedding"], tower["positional_embedding"] = (
        tower["class_embedding"][0, 0],
        tower["positional_embedding"][0],
    )
    text = {key: torch.randn_like(tensor) for key, tensor in tower.items() if key.startswith("transformer.")}
    text |= {
        "positional_embedding": torch.randn(9, WIDTH),
        "ln_final.weight": torch.randn(WIDTH),
        "logit_scale": torch.ones(()),
    }
    vision = {f"visual.{key}": tensor for key, tensor in tower.items()} | {"visual.proj": torch.randn(WIDTH, 8)}
    return {key: tensor.half() for key, tensor in (text | vision).items()}


FACEBOOKS = [
    ("vit_wee_patch14_dinov2", facebooks_dinov2, "timm's"),
    ("vit_weegiant_patch14_dinov2", facebooks_dinov2, "Facebook's DINOv2"),
    ("vit_wee_patch14_reg4_dinov2", facebooks_dinov2, "Facebook's DINOv2"),
    ("vit_weegiant_patch14_reg4_dinov2", facebooks_dinov2, "Facebook's DINOv2"),
    ("vit_wee_patch16_dinov3", facebooks_dinov3, "Facebook's DINOv3"),
    ("vit_wee_patch16_dinov3_qkvb", facebooks_dinov3, "Facebook's DINOv3"),
    ("vit_wee_plus_patch16_dinov3_qkvb", facebooks_dinov3, "Facebook's DINOv3"),
    ("vit_wee_patch16_clip_64", openais, "OpenAI's CLIP"),
]


@pytest.mark.parametrize(("name", "write", "layout"), FACEBOOKS, ids=[row[0] for row in FACEBOOKS])
@pytest.mark.parametrize("decoder", ["upernet", "fpn"])
def test_original_checkpoints_are_what_timms_own_filter_reads(
    decoder: str, name: str, write: Callable[[str], Tensors], layout: str
) -> None:
    from timm.models import eva, vision_transformer

    theirs, model = write(name), timm.create_model(name, num_classes=0)
    read = (eva if "dinov3" in name else vision_transformer).checkpoint_filter_fn(dict(theirs), model)
    spec = found(f"{decoder}:{name}")
    fitted = fit(theirs, spec)
    assert f"layout: {layout}" in fitted.notes
    wanted = {key.removeprefix("model."): tensor for key, tensor in fitted.tensors.items()}
    assert same(wanted, {key: tensor.float() for key, tensor in read.items() if key in wanted})
    assert len(wanted) == len(model.state_dict()) - 2  # the final norm


FAMILIES = [name for name in small_vits.FAMILIES if "deit" not in name]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_rule_of_a_layout_is_used(name: str) -> None:
    encoder = encoder_of(found(f"upernet:{name}"))
    names = [part.names[0] for part in encoder.parts["timm's"].values()]
    for layout in encoder.layouts.values():
        whole = [layout.part(own) for own in names]
        for i in range(len(layout.rules)):
            fewer = Layout(layout.name, layout.rules[:i] + layout.rules[i + 1 :], layout.changes, layout.joins)
            if "_bias" not in layout.rules[i][0] or "qkvb" in name:  # half of the models have none
                assert [fewer.part(own) for own in names] != whole, layout.rules[i]


@pytest.mark.parametrize(
    ("encoder", "layouts"),
    [
        ("vit_huge_patch14_224", {"transformers' ViT, as on disk", "torchvision's ViT"}),
        ("deit_small_patch16_224", {"transformers' ViT, as on disk"}),
        ("vit_large_patch14_clip_quickgelu_336", {"OpenAI's CLIP", "transformers' CLIP"}),
        ("vit_base_patch14_dinov2", {"transformers' DINOv2, as on disk"}),
        ("vit_giant_patch14_reg4_dinov2", {"Facebook's DINOv2", "transformers' DINOv2, as in memory"}),
        ("vit_huge_plus_patch16_dinov3", {"Facebook's DINOv3", "transformers' DINOv3, as on disk"}),
        ("vit_7b_patch16_dinov3", {"Facebook's DINOv3"}),
    ],
)
def test_timms_models_have_the_layouts_of_their_family(encoder: str, layouts: set[str]) -> None:
    assert layouts <= {layout.name for layout in _timm_layouts(encoder, ())}
