"""Plain ViTs: which maps the decoders get, what they make of them, and how images of any size become whole patches."""

import pytest
import small_vits
import timm
import torch
from small_vits import WIDTH, found
from transformers import BeitConfig
from transformers.models.beit.modeling_beit import BeitFPNNeck, BeitUperHead

from backbones import network
from backbones.plain_vit import taps_of
from backbones.registry import BACKBONES, refuse_small_crop
from backbones.spec import BackboneError


@pytest.mark.parametrize(
    ("depth", "taps"), [(4, (0, 1, 2, 3)), (12, (3, 5, 7, 11)), (24, (7, 11, 15, 23)), (40, (12, 19, 26, 39))]
)
def test_upernets_taps_are_those_of_beit(depth: int, taps: tuple[int, ...]) -> None:
    assert taps_of(depth) == taps


def test_taps_rise_to_the_last_block_at_every_depth() -> None:
    for depth in range(4, 65):
        taps = taps_of(depth)
        assert sorted({*taps}) == list(taps)
        assert len(taps) == 4
        assert taps[-1] == depth - 1
    with pytest.raises(ValueError, match="upernet needs four blocks and the encoder has 3; use fpn"):
        taps_of(3)


def test_upernet_equals_beits() -> None:
    """transformers has BEiT's neck and head, after mmsegmentation; they list their tensors in the same order."""
    torch.manual_seed(0)
    net = network.build(found("upernet:vit_wee_patch16_64"), 5).eval()
    config = BeitConfig(hidden_size=WIDTH, num_labels=5, out_indices=[1, 2, 3, 4])
    neck, head = BeitFPNNeck(config).eval(), BeitUperHead(config).eval()
    for theirs, ours in ((neck, net.decoder.get_submodule("neck")), (head, net.decoder.get_submodule("head"))):
        tensors = list(ours.state_dict().values())
        assert len(tensors) == len(theirs.state_dict())
        theirs.load_state_dict(dict(zip(theirs.state_dict(), tensors, strict=True)))
    maps = list(torch.randn(4, 2, WIDTH, 4, 6))
    with torch.no_grad():
        expected = head(neck(maps))
        assert expected.std() > 1e-3
        torch.testing.assert_close(net.decoder(maps), expected)
    assert [layer.p for layer in net.decoder.modules() if isinstance(layer, torch.nn.Dropout2d)] == [0.1]


@pytest.mark.parametrize("patch", [8, 16])
def test_the_simple_pyramid_starts_at_a_quarter_of_the_image(patch: int) -> None:
    """ViTDet halves the channels at each doubling; all scales come from the last block."""
    net = network.build(found(f"fpn:vit_wee_patch{patch}_64"), 5).eval()
    features = net.features(torch.rand(1, 1, 64, 96))
    assert [tuple(map_.shape) for map_ in features] == [(1, WIDTH, 64 // patch, 96 // patch)]
    pyramid = [*net.decoder.get_submodule("pyramid").children()]
    assert [tuple(scale(features[0]).shape[-2:]) for scale in pyramid] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    widths = [
        next(m.in_channels for m in scale.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1))
        for scale in pyramid
    ]
    assert widths == ([WIDTH // 4, WIDTH // 2, WIDTH, WIDTH] if patch == 16 else [WIDTH // 2, WIDTH, WIDTH, WIDTH])


@pytest.mark.parametrize("name", small_vits.FAMILIES)
def test_maps_are_those_of_timms_model_without_prefix_tokens(name: str) -> None:
    """timm's features of an image of its own size, up to the final norm, which the decoders do not get."""
    torch.manual_seed(0)
    encoder = network.build(found(f"upernet:{name}"), 5).encoder.eval()
    whole = timm.create_model(name, num_classes=0).eval()
    whole.load_state_dict({key.removeprefix("model."): t for key, t in encoder.state_dict().items()}, strict=False)
    whole.norm = torch.nn.Identity()
    side = small_vits.FAMILIES[name][1]
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        tokens = whole.forward_features(images)[:, whole.num_prefix_tokens :]
        maps = encoder(images)
    assert len(maps) == 4
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), tokens, rtol=1e-4, atol=1e-5)


def test_images_are_padded_to_whole_pairs_of_patches() -> None:
    net = network.build(found("upernet:vit_wee_patch14_dinov2"), 2)
    assert net.stride == 28
    assert [tuple(map_.shape[-2:]) for map_ in net.features(torch.rand(1, 1, 50, 75))] == [(4, 6)] * 4


@pytest.mark.parametrize(
    "name",
    ["dpt-vit-small", "upernet:vit_small_patch16_224", "fpn:flexivit_small", "dpt:samvit_base_patch16"],
)
def test_a_patch_larger_than_the_crop_is_refused_in_one_line(name: str) -> None:
    spec = found(name)
    refuse_small_crop(spec, (16, 16))
    with pytest.raises(BackboneError) as refused:
        refuse_small_crop(spec, (64, 15))
    assert str(refused.value) == (
        "its patches have 16 x 16 px, more than the crop of 64 x 15 px; choose a protocol with larger crops"
    )


def test_pyramids_take_any_crop() -> None:
    for name in ("segformer-b0", "fpn-efficientnet-lite0", "deeplabv3plus-resnet50", "tiny"):
        refuse_small_crop(BACKBONES[name], (8, 8))
