"""The clauses of the contract of a backbone, each tried on small random images and on networks with random weights, on the CPU.

The docstring of a clause is its rule, and its function raises a BrokenError where a network breaks it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from backbones import network
from backbones.checkpoint_file import listed
from backbones.network import STRIDE, Network
from backbones.spec import BackboneSpec
from backbones.transfer import EncoderWeights, LoadError, load_encoder, state_sha256

CLASSES, OTHER_CLASSES = 5, 3
SIZES = ((64, 96), (50, 75), (33, 31))  # height and width of the images that a network is tried on
SAME_FRAC = 0.5  # of the drawn weights that may be equal after another seed: some networks start from fixed filters


class BrokenError(Exception):
    """A clause is broken; the message says how, and what to do."""


class Networks:
    """Networks of one backbone, each built when a clause first needs it."""

    def __init__(self, spec: BackboneSpec) -> None:
        self.spec = spec

    def build(self, seed: int, classes: int = CLASSES) -> Network:
        """Build one anew."""
        torch.manual_seed(seed)
        return network.build(self.spec, classes)

    @cached_property
    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Encoder and decoder as they are returned."""
        return network.parts(self.spec, CLASSES)

    @cached_property
    def net(self) -> Network:
        """A network in eval mode; no clause changes it."""
        return self.build(0).eval()

    @cached_property
    def other(self) -> Network:
        """Of another seed and another number of classes."""
        return self.build(1, OTHER_CLASSES).eval()

    @cached_property
    def trained(self) -> "_Trained":
        """A second network of the seed of `net`, after one backward pass."""
        net = self.build(0).train()
        digests, shapes = _digests(net), _shapes(net)
        net(_images(2, 1, *SIZES[0])).square().mean().backward()
        return _Trained(net, digests, shapes)


@dataclass(frozen=True)
class _Trained:
    """A network after a backward pass; digests and shapes of its tensors before it."""

    net: Network
    digests: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


def _images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _digests(net: nn.Module) -> dict[str, str]:
    return {name: state_sha256({name: tensor}) for name, tensor in net.state_dict().items()}


def _shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def builds(networks: Networks) -> None:
    """build(num_classes) returns (encoder, decoder), whose tensors exist at once."""
    for part, module in zip(("encoder", "decoder"), networks.parts, strict=True):
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if is_lazy(tensor):
                raise BrokenError(
                    f"{part}.{name} has no shape before the first image: replace lazy modules by ones with all sizes given"
                )


def has_parameters(networks: Networks) -> None:
    """The encoder has parameters: a source transfers them."""
    if not any(parameter.numel() for parameter in networks.parts[0].parameters()):
        raise BrokenError(
            "the encoder has no parameters, so no source could transfer any: create its layers in __init__, as attributes or "
            "in nn.ModuleList, and return the encoder first"
        )


@torch.no_grad()
def gives_maps(networks: Networks) -> None:
    """The encoder maps images (B, 3, H, W), whose sides are multiples of 32, to a list of maps (B, C, h, w), from fine to coarse;
    other tensors, such as tokens, come last."""
    features = networks.net.features(_images(2, 1, *SIZES[0]))
    if not isinstance(features, tuple | list) or not len(features):
        raise BrokenError(f"the encoder returns {_type(features)}: return a list of feature maps, even of a single one")
    if strange := [_type(feature) for feature in features if not isinstance(feature, Tensor)]:
        raise BrokenError(f"the encoder's list contains {strange[0]}: return tensors only")
    shapes = [tuple(feature.shape) for feature in features]
    maps = [shape for shape in shapes if len(shape) == 4]
    if not maps or maps != shapes[: len(maps)]:
        raise BrokenError(
            f"the encoder returns tensors of shapes {shapes}: begin with maps (batch, channels, height, width), "
            "reshaped from tokens if need be"
        )
    if wrong := [shape for shape in shapes if shape[0] != 2]:
        raise BrokenError(
            f"a feature has shape {wrong[0]} for a batch of 2 images: keep the batch as the first dimension"
        )
    if not all(a[2] * a[3] >= b[2] * b[3] for a, b in pairwise(maps)):
        raise BrokenError(f"the feature maps have shapes {maps}: order them from fine to coarse")


def _type(value: object) -> str:
    if isinstance(value, Tensor):
        return f"one tensor, {str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return "nothing" if value is None else f"an object of type {type(value).__name__}" if value else "an empty list"


@torch.no_grad()
def gives_logits(networks: Networks) -> None:
    """The decoder maps this list to logits (B, num_classes, h, w), not larger than the image, finite and not constant."""
    for size in SIZES:
        images, padded = _images(2, 1, *size), tuple(side + -side % STRIDE for side in size)
        logits = networks.net.decoder(networks.net.features(images))
        if not isinstance(logits, Tensor) or logits.ndim != 4 or not logits.is_floating_point():
            raise BrokenError(
                f"the decoder returns {_type(logits)}: return one float tensor (batch, num_classes, height, width)"
            )
        shape, wanted = tuple(logits.shape), (2, CLASSES)
        if shape[:2] != wanted:
            raise BrokenError(
                f"logits have shape {shape} for 2 images and num_classes {CLASSES}: they must begin with {wanted}"
            )
        if any(a > b for a, b in zip(shape[2:], padded, strict=True)):
            raise BrokenError(
                f"logits have shape {shape} for images of {padded}: they must not be larger than the image"
            )
        if (shape[2] - shape[3]) * (padded[0] - padded[1]) < 0:
            raise BrokenError(f"logits have shape {shape} for images of {padded}: height and width are exchanged")
        _require_values(logits)
        if (whole := tuple(networks.net(images).shape)) != (*wanted, *size):
            raise BrokenError(f"logits of images of {size} have shape {whole}: they must have the size of the image")


def _require_values(logits: Tensor) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise BrokenError(
            "logits of a network with random weights are not finite: scale its layers or their initial weights"
        )
    if not float(logits.flatten(2).std(-1).max()) > 0:
        raise BrokenError(
            "logits are equal at every place of an image: let the decoder use feature maps, with random initial weights"
        )


@torch.no_grad()
def keeps_its_input(networks: Networks) -> None:
    """The encoder does not change its input in place."""
    images = _images(2, 3, *(side + -side % networks.net.stride for side in SIZES[0]))
    before = images.clone()
    networks.net.encoder(images)
    if not torch.equal(images, before):
        raise BrokenError(
            "the encoder changes the images that it is given: replace operations in place, such as nn.ReLU(inplace=True) or "
            "x += y, before its first layer"
        )


@torch.no_grad()
def sees_the_image(networks: Networks) -> None:
    """Every feature depends on the image."""
    one, other = (networks.net.features(_images(1, 1, *SIZES[0], seed=seed)) for seed in (0, 1))
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        if a.numel() and torch.equal(a, b):
            raise BrokenError(
                f"feature {number} is the same for two images: compute it from the image, or do not return it"
            )


@torch.no_grad()
def reads_the_features(networks: Networks) -> None:
    """The logits depend on the features."""
    net = networks.net
    one, other = (net.decoder(net.features(_images(1, 1, *SIZES[0], seed=seed))) for seed in (0, 1))
    if torch.equal(one, other):
        raise BrokenError("the decoder gives the same logits for two images: compute them from the features")


@torch.no_grad()
def repeats_itself(networks: Networks) -> None:
    """In eval mode the same image gives the same logits."""
    images = _images(2, 1, *SIZES[0])
    if not torch.equal(networks.net(images), networks.net(images)):
        raise BrokenError(
            "in eval mode it gives other logits for the same images: use nn.Dropout, or F.dropout(..., training=self.training), "
            "and keep no state between images"
        )


def keeps_its_tensors(networks: Networks) -> None:
    """A forward pass adds and resizes no tensor, and no two names share one."""
    net, before = networks.trained.net, networks.trained.shapes
    if changed := sorted(dict(before.items() ^ _shapes(net).items())):
        raise BrokenError(
            f"a forward pass adds, removes or resizes {listed(changed)}: create every tensor in __init__, or register buffers "
            "that depend on the image with persistent=False"
        )
    names: dict[int, str] = {}
    for name, tensor in net.state_dict().items():
        if tensor.numel() and (first := names.setdefault(tensor.data_ptr(), name)) != name:
            raise BrokenError(f"{first} and {name} are one tensor, which cannot be saved: give each layer its own")


def learns(networks: Networks) -> None:
    """In training the gradient reaches every parameter."""
    parameters = list(networks.trained.net.named_parameters())
    if frozen := [name for name, parameter in parameters if not parameter.requires_grad]:
        raise BrokenError(
            f"frozen: {listed(frozen)}; every parameter is trained: set requires_grad, or register a buffer"
        )
    if idle := [name for name, parameter in parameters if parameter.grad is None]:
        raise BrokenError(
            f"no gradient reaches {listed(idle)}: use them in forward, or remove them, such as a classifier behind the encoder"
        )


def starts_at_random(networks: Networks) -> None:
    """Initial weights are random, and torch's seed determines them."""
    first, second = _digests(networks.net), networks.trained.digests
    if differing := [name for name, digest in first.items() if second.get(name) != digest]:
        raise BrokenError(
            f"torch.manual_seed does not determine {listed(differing)}: draw initial weights from torch's own generator"
        )
    others = dict(networks.other.encoder.named_parameters())
    drawn = {name: p for name, p in networks.net.encoder.named_parameters() if p.ndim >= 2 and not _is_constant(p)}
    same = sum(int((p == others[name]).sum()) for name, p in drawn.items() if p.shape == others[name].shape)
    total = sum(p.numel() for p in drawn.values())
    if same > SAME_FRAC * total:
        raise BrokenError(
            f"{same / total:.0%} of the encoder's weights are the same after another seed: build it without pretrained weights, "
            "which come from a source"
        )


def _is_constant(tensor: Tensor) -> bool:
    return bool((tensor == tensor.flatten()[0]).all()) if tensor.numel() else True


def transfers(networks: Networks) -> None:
    """The encoder's tensors transfer to a network with other classes, every one of them."""
    giver, taker = networks.other.encoder, networks.trained.net
    ours, theirs = _shapes(taker.encoder), _shapes(giver)
    if differing := sorted(dict(ours.items() ^ theirs.items())):
        raise BrokenError(
            f"{listed(differing)} of the encoder depends on num_classes: move it to the decoder, which is not transferred"
        )
    with torch.no_grad():
        for parameter in giver.parameters():
            if _is_constant(parameter):  # zeros at first, as in a position embedding: training moves them
                parameter.normal_()
    weights = EncoderWeights(giver.state_dict(), networks.spec.mean, networks.spec.std, "another network")
    try:
        load_encoder(taker, weights, _images(1, 1, *SIZES[0]), ["a random image"])
    except LoadError as error:
        raise BrokenError(
            f"the encoder's tensors cannot be transferred: {error.certificate.problems[0]}; register buffers that hold no "
            "weights with persistent=False"
        ) from error
    received = taker.encoder.state_dict()
    if lost := [name for name, tensor in weights.tensors.items() if not torch.equal(tensor, received[name])]:
        raise BrokenError(
            f"{listed(lost)} of the encoder does not keep the values that it is given: remove its state hooks"
        )
