"""Detect copied networks by comparing weights rather than checksums."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.plan.unit_folder import NETWORK
from bench.submission.copies import Place
from results.record import RunRecord
from results.record_files import read_records
from safe_io.tensors import TensorFileError, read_content

# relative distance of weights below which a network is a copy; replicates from the same weights are 0.345 apart
NEAR = 0.05
Tensors = Mapping[str, Tensor]

SAMPLED = 4096  # values to compare per tensor


@dataclass(frozen=True)
class Sketch:
    """A sample of a network's weights, taken at the same positions for every network of an architecture."""

    record: RunRecord
    path: Path
    values: Mapping[str, NDArray[np.float32]]

    def __str__(self) -> str:
        return f"{self.record.source} x {self.record.backbone} r{self.record.replicate} ({self.path})"


def sketch(record: RunRecord, path: Path, tensors: Mapping[str, Tensor]) -> Sketch:
    """Sample the convolutions and linear layers; one-dimensional tensors (biases, batch statistics) are always similar."""
    values = {}
    for name, tensor in tensors.items():
        if tensor.ndim >= 2 and tensor.is_floating_point():
            flat = tensor.detach().reshape(-1)
            values[name] = flat[:: max(1, flat.numel() // SAMPLED)].float().numpy()
    return Sketch(record, path, values)


def read_others(places: Sequence[Place], backbones: Iterable[str]) -> Iterator[Sketch]:
    """Yield the networks of these backbones that are kept in other stores; unreadable ones are skipped."""
    wanted = set(backbones)
    for place in places:
        above = place.store.root.absolute().parent
        kept = above.with_name(f"{above.name}-networks")  # beside a bundle
        for record in read_records(place.store)[0]:
            if record.status == "ok" and record.backbone in wanted:
                for path in (place.store.unit_dir("final", record.run) / NETWORK, kept / f"{record.run}.safetensors"):
                    try:
                        tensors = read_content(path)
                    except TensorFileError:
                        continue
                    yield sketch(record, path, tensors)
                    break


def distance(a: Sketch, b: Sketch) -> float | None:
    """Mean relative distance of the weights over tensors: 0 equal, about 1 unrelated; None if the architectures differ.

    |a - b| / sqrt(|a|^2 + |b|^2) of each tensor.
    """
    if {name: value.shape for name, value in a.values.items()} != {name: v.shape for name, v in b.values.items()}:
        return None
    distances = [_relative(mine, b.values[name]) for name, mine in a.values.items()]
    return float(np.mean(distances)) if distances else None


def _relative(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    scale = float(np.hypot(np.linalg.norm(a), np.linalg.norm(b)))
    return float(np.linalg.norm(a - b)) / scale if scale else 0.0


def copies(own: Sequence[Sketch], others: Iterable[Sketch]) -> Iterator[tuple[Sketch, Sketch, float]]:
    """Yield pairs of an own network and another that are closer than independent trainings, with their distance."""
    for a, b in itertools.chain(itertools.combinations(own, 2), ((a, b) for b in others for a in own)):
        apart = distance(a, b) if a.record.run != b.record.run else None
        if apart is not None and apart < NEAR:
            yield a, b, apart
