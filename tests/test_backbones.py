"""One contract for every row of the registry."""

import pytest
import torch

from backbones.network import Network, build
from backbones.spec import BACKBONES, BackboneSpec
from backbones.transfer import EncoderWeights, load_encoder

rows = pytest.mark.parametrize("spec", BACKBONES.values(), ids=list(BACKBONES))
CLASSES = 5


def network(spec: BackboneSpec, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return build(spec, CLASSES)


@rows
@pytest.mark.parametrize("size", [(64, 96), (50, 75), (33, 31)])
def test_logits_have_the_size_of_the_image_at_odd_sizes_too(spec: BackboneSpec, size: tuple[int, int]) -> None:
    net = network(spec).eval()
    with torch.no_grad():
        logits = net(torch.rand(2, 1, *size))
    assert logits.shape == (2, CLASSES, *size)
    assert torch.isfinite(logits).all()


@rows
def test_the_gradient_reaches_every_parameter(spec: BackboneSpec) -> None:
    net = network(spec).train()
    net(torch.rand(2, 1, 64, 64)).square().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]


@rows
def test_the_encoder_leaves_and_comes_back_strictly(spec: BackboneSpec) -> None:
    giver, taker = network(spec, 0), network(spec, 1)
    weights = EncoderWeights(giver.encoder.state_dict(), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "test")
    certificate = load_encoder(taker, weights, torch.rand(1, 1, 64, 64), ["probe"])
    assert certificate.passed
    assert certificate.tensors_matched == certificate.tensors_expected == len(giver.encoder.state_dict())
    for name, tensor in giver.encoder.state_dict().items():
        assert torch.equal(tensor, taker.encoder.state_dict()[name]), name


@rows
def test_weights_bring_their_own_normalisation(spec: BackboneSpec) -> None:
    """Equal weights with another mean and std give other features: it cannot be forgotten on the way."""
    net = network(spec).eval()
    images = torch.rand(1, 1, 64, 64)
    own = net.features(images)[-1].clone()
    weights = EncoderWeights(network(spec, 1).encoder.state_dict(), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "test")
    load_encoder(net, weights, images, ["probe"])
    moved = net.eval().features(images)[-1].clone()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    by_hand = ((images.expand(-1, 3, -1, -1) - mean) / std).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(moved, net.encoder(by_hand)[-1])
    assert not torch.equal(own, moved)


@rows
def test_one_seed_is_one_network(spec: BackboneSpec) -> None:
    a, b = network(spec, 3).state_dict(), network(spec, 3).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_network_is_sealed() -> None:
    assert getattr(Network, "__final__", False)
