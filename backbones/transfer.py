"""Loading weights into an encoder strictly, with a certificate of what happened.

Published work has been misled by weights that did not load. Here every tensor of the encoder, buffers included, must receive
plausible values, or the run is refused.
"""

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from backbones.network import Network
from backbones.spec import Colour

NEAREST_FOR = 5  # missing tensors for which the nearest names are searched: slow among a thousand names


@dataclass(frozen=True)
class EncoderWeights:
    """Tensors for an encoder under its own names, with their input normalisation."""

    tensors: Mapping[str, Tensor]
    mean: Colour
    std: Colour
    origin: str  # for the record
    reading: tuple[str, ...] = ()  # how they were read and recognised


@dataclass(frozen=True)
class Certificate:
    """Summary of loading. `problems` is empty if the weights were accepted."""

    origin: str
    problems: tuple[str, ...]
    tensors_expected: int
    tensors_matched: int
    stages: dict[str, dict[str, int]]  # stage -> tensors and values received
    mean: Colour
    std: Colour
    sha256: str  # over names and values
    share_equal_to_initial_frac: float | None = None  # share of parameter values equal to their random initial value
    feature_distance: tuple[float, ...] | None = (
        None  # per scale, from the random encoder's features: 0 = equal, 1 = the maximum
    )
    probe: tuple[str, ...] = ()  # images on which the distance was measured
    reading: tuple[str, ...] = ()  # how the weights were read and recognised

    @property
    def passed(self) -> bool:
        """Return whether the weights may be used."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return plain values for certificate.json."""
        return asdict(self) | {"passed": self.passed}


class LoadError(Exception):
    """Weights were refused; see `.certificate`."""

    def __init__(self, certificate: Certificate) -> None:
        more = f" (and {len(certificate.problems) - 1} more)" if len(certificate.problems) > 1 else ""
        super().__init__(f"weights from {certificate.origin} were refused: {certificate.problems[0]}{more}")
        self.certificate = certificate


def refusal(origin: str, why: str) -> LoadError:
    """Make the LoadError for weights that could not be read as tensors of this encoder."""
    nothing = EncoderWeights({}, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), origin)
    return LoadError(_certificate({}, nothing, (why,)))


def load_encoder(network: Network, weights: EncoderWeights, probe: Tensor, probe_ids: Sequence[str]) -> Certificate:
    """Load weights into `network.encoder` and set its normalisation; return the certificate.

    probe: (B, 1, H, W) thermal images in 0..1, the same for every source of a comparison.

    Raises:
        LoadError: a tensor is missing, unknown, of the wrong shape, not finite or constant, or nothing changed.
    """
    expected = {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}
    if problems := _tensor_problems(expected, weights.tensors):
        raise LoadError(_certificate(expected, weights, problems))
    network.set_normalisation(weights.mean, weights.std)
    before = _features(network, probe)
    network.encoder.load_state_dict(dict(weights.tensors), strict=True)
    distance = _distances(before, _features(network, probe))
    equal = _share_equal(network, expected)
    if equal == 1:
        problems.append("nothing changed: every parameter still has its random initial value")
    if distance[-1] == 0:
        problems.append("the deepest features are those of the random encoder")
    measured = replace(
        _certificate(expected, weights, problems),
        share_equal_to_initial_frac=equal,
        feature_distance=tuple(distance),
        probe=tuple(probe_ids),
    )
    if problems:
        raise LoadError(measured)
    return measured


def _certificate(expected: Mapping[str, Tensor], weights: EncoderWeights, problems: Sequence[str]) -> Certificate:
    given = weights.tensors
    return Certificate(
        origin=weights.origin,
        problems=tuple(problems),
        tensors_expected=len(expected),
        tensors_matched=sum(
            name in expected and expected[name].shape == tensor.shape for name, tensor in given.items()
        ),
        stages=_stages(expected, given),
        mean=weights.mean,
        std=weights.std,
        sha256=state_sha256(given),
        reading=weights.reading,
    )


def state_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the hex digest of the sorted names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _tensor_problems(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    left_over = sorted(set(given) - set(expected))
    missing = sorted(set(expected) - set(given))
    problems = [f"no tensor for {name}{_nearest(name, left_over)}" for name in missing[:NEAREST_FOR]]
    problems += [f"no tensor for {name}" for name in missing[NEAREST_FOR:]]
    problems += [f"unknown tensor {name}" for name in left_over]
    for name in sorted(set(expected) & set(given)):
        tensor = given[name]
        if tensor.shape != expected[name].shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, the encoder's has {tuple(expected[name].shape)}")
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            problems.append(f"{name} has values that are not finite")
        elif (
            tensor.is_floating_point()
            and tensor.ndim >= 2
            and tensor.numel() > 1
            and bool((tensor == tensor.flatten()[0]).all())
        ):
            problems.append(f"{name} has no variance: every value is {float(tensor.flatten()[0]):g}")
    return problems


def _nearest(name: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
    return f"; nearest in the file: {', '.join(close)}" if close else ""


def stage_of(name: str) -> str:
    """Return the stage of a tensor: its name up to the first number, or its first two parts."""
    numbered = re.match(r"(.*?\.\d+)\.", name)
    return numbered.group(1) if numbered else ".".join(name.split(".")[:2])


def _stages(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    stages: dict[str, dict[str, int]] = {}
    for name, tensor in expected.items():
        stage = stages.setdefault(stage_of(name), {"expected": 0, "tensors": 0, "values": 0})
        stage["expected"] += 1
        if name in given and given[name].shape == tensor.shape:
            stage["tensors"] += 1
            stage["values"] += tensor.numel()
    return stages


def _share_equal(network: Network, initial: Mapping[str, Tensor]) -> float:
    equal = total = 0
    for name, parameter in network.encoder.named_parameters():
        equal += int((parameter.detach() == initial[name]).sum())
        total += parameter.numel()
    return equal / total


@torch.no_grad()
def _features(network: Network, probe: Tensor) -> list[Tensor]:
    training = network.training
    network.eval()
    features = [feature.clone() for feature in network.features(probe)]
    network.train(training)
    return features


def _distances(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[float]:
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x.numel()]
    return [float((x - y).norm() / (x.norm() + y.norm()).clamp_min(1e-12)) for x, y in pairs]
