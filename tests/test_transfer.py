"""Weights that did not load have misled published work: each such case is refused, and the certificate records why."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backbones.network import Network, build
from backbones.registry import BACKBONES
from backbones.spec import HALF
from backbones.transfer import Certificate, EncoderWeights, LoadError, load_encoder, stage_of

Tensors = dict[str, Tensor]


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return build(BACKBONES["tiny"], 3)


def load(tensors: Tensors) -> Certificate:
    return load_encoder(network(0), EncoderWeights(tensors, HALF, HALF, "test"), torch.rand(2, 1, 32, 32), ["a", "b"])


def good() -> Tensors:
    return {name: tensor.clone() for name, tensor in network(1).encoder.state_dict().items()}


def test_good_weights_pass() -> None:
    certificate = load(good())
    assert certificate.passed
    assert certificate.share_equal_to_initial_frac is not None
    assert certificate.share_equal_to_initial_frac < 0.1  # norms start at 0 and 1 everywhere
    assert certificate.feature_distance is not None
    assert min(certificate.feature_distance) > 0.1
    assert set(certificate.stages) == {"stages.0", "stages.1", "stages.2"}
    assert certificate.probe == ("a", "b")


def renamed(tensors: Tensors) -> None:
    tensors["stages.0.0.kernel"] = tensors.pop("stages.0.0.weight")


def without_a_buffer(tensors: Tensors) -> None:
    del tensors["stages.1.1.running_var"]


def zeros(tensors: Tensors) -> None:
    for name in tensors:
        tensors[name] = torch.zeros_like(tensors[name])


def one_nan(tensors: Tensors) -> None:
    tensors["stages.2.0.weight"][0, 0, 0, 0] = float("nan")


def infinite_buffer(tensors: Tensors) -> None:
    tensors["stages.0.1.running_mean"][0] = float("inf")


def reshaped(tensors: Tensors) -> None:
    tensors["stages.1.0.weight"] = tensors["stages.1.0.weight"][:-1]


def constant(tensors: Tensors) -> None:
    tensors["stages.1.0.weight"].fill_(0.5)


def left_over(tensors: Tensors) -> None:
    tensors["stages.9.0.weight"] = torch.rand(3, 3)


def never_loaded(tensors: Tensors) -> None:
    tensors.update(network(0).encoder.state_dict())


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (renamed, r"no tensor for stages.0.0.weight; nearest in the file: stages.0.0.kernel"),
        (without_a_buffer, "no tensor for stages.1.1.running_var"),
        (zeros, "has no variance"),
        (one_nan, "not finite"),
        (infinite_buffer, "not finite"),
        (reshaped, "has shape"),
        (constant, "every value is 0.5"),
        (left_over, "unknown tensor stages.9.0.weight"),
        (never_loaded, "nothing changed"),
    ],
)
def test_damaged_weights_are_refused_with_the_reason(spoil: Callable[[Tensors], None], why: str) -> None:
    tensors = good()
    spoil(tensors)
    with pytest.raises(LoadError, match=why) as refused:
        load(tensors)
    certificate = refused.value.certificate
    assert not certificate.passed
    assert certificate.to_json()["problems"]


def test_permuted_weights_pass() -> None:
    """The control `imagenet~permuted` keeps every tensor's values and must be accepted."""
    tensors = good()
    for name, tensor in tensors.items():
        tensors[name] = tensor.flatten()[torch.randperm(tensor.numel())].view(tensor.shape)
    assert load(tensors).passed


def test_a_refusal_leaves_the_network_unchanged() -> None:
    net = network(0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    tensors = good()
    one_nan(tensors)
    with pytest.raises(LoadError):
        load_encoder(net, EncoderWeights(tensors, (0.0,) * 3, (9.0,) * 3, "test"), torch.rand(1, 1, 32, 32), ["a"])
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("model.blocks.3.1.bn.weight", "model.blocks.3"),
        ("model.conv_stem.weight", "model.conv_stem"),
        ("stages.0.blocks.1.norm.bias", "stages.0"),
    ],
)
def test_stages_are_named_after_the_first_number(name: str, stage: str) -> None:
    assert stage_of(name) == stage
