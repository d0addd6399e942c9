"""Spot check: predict random test images again with a bundle's networks and compare with its evidence."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backbones.network import Network
from backbones.transfer import state_sha256
from bench.score import confusion_matrix, weighted_fmeasure
from bench.spec import Protocol
from bench.submission import networks
from bench.submission.copies import explained
from bench.submission.faults import Fault
from bench.submission.judged import Judged
from bench.submission.target import target_of
from bench.targets import Target
from bench.train import devices
from bench.train.batches import open_split
from bench.train.loop import Progress, predict
from bench.train.weights import build_for
from results import metrics
from results.evidence_files import read_evidence
from results.record import TEST, RunRecord
from results.store import Store
from safe_io.tensors import TensorFileError, read_content

TOLERATED = 1e-3  # share of an image's pixels that may differ on another processor
CLOSE = 0.01  # tolerance for the IoU of a class over the drawn images and the weighted F-measure of one

Scored = Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]  # image -> its (K, K) and (K,)


def spot(judged: Judged, folder: Path, data: Path, count: int, seed: int, report: Progress) -> list[str]:
    """Predict test images again with the networks FOLDER/<run>.safetensors and compare with the evidence.

    Draws `count` pairs of a run and an image without replacement, or all if there are fewer. Every network, drawn or not, is
    compared with all other known networks. Adds faults to `judged`; returns a summary.

    Raises:
        BenchError: the target's data cannot be used.
    """
    drawn, of = _drawn(judged.measured, count, seed)
    store, done, sketches = Store(judged.runs), 0, []
    targets: dict[tuple[str, ...], Target] = {}  # opened once, because that reads every file
    for record in judged.measured:
        tensors = _network(judged, record, folder / f"{record.run}.safetensors", required=record.run in drawn)
        if tensors is None:
            continue
        path = folder / f"{record.run}.safetensors"
        sketches.append(networks.sketch(record, path, tensors))
        if record.run not in drawn:
            continue
        protocol = Protocol.model_validate(record.settings["protocol"])
        board = (record.target, record.protocol, record.target_hash)
        target = targets[board] = targets.get(board) or target_of(record, protocol, data, judged.target_of(record))
        net = build_for(protocol, judged.backbone_of(record), len(record.classes))
        try:
            net.load_state_dict(tensors)
        except RuntimeError as error:
            why = f"{path.name} is not a network of {record.backbone}: {' '.join(str(error).split())[:200]}"
            judged.faults.append(Fault("network.unreadable", why))
            continue
        where = f"{record.source} x {record.backbone} r{record.replicate}"
        scored = _of_images(store, record, drawn[record.run])
        with devices.computing(protocol):
            judged.faults += [fault.at(where) for fault in _prediction_faults(net, record, target, protocol, scored)]
        done += len(drawn[record.run])
        report(done, of)
    others = _compare(judged, sketches)
    compared = f"{len(sketches)} networks compared with each other and with {others} others"
    return [f"{done} random test images predicted again (seed {seed})", compared]


def _drawn(runs: Sequence[RunRecord], count: int, seed: int) -> tuple[Mapping[str, list[tuple[str, int]]], int]:
    """Draw images from all test splits; return (run -> test split and row of its evidence, total)."""
    pairs = [
        (record.run, split, image)
        for record in runs
        for split, scores in record.by_split.items()
        for image in range(scores.test_images)
    ]
    drawn: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for place in np.random.default_rng(seed).permutation(len(pairs))[:count]:
        run, split, image = pairs[place]
        drawn[run].append((split, image))
    return dict(drawn), min(count, len(pairs))


def _network(judged: Judged, record: RunRecord, path: Path, required: bool) -> networks.Tensors | None:
    """Read the network of a run; None if it is unreadable or not the one that was scored."""
    try:
        tensors = read_content(path)
    except TensorFileError as error:
        if required:
            judged.faults.append(Fault("network.unreadable", f"the network {path} cannot be read: {error.why}"))
        return None
    if state_sha256(tensors) != record.network_sha256:
        why = f"{path.name} is not the network that run {record.run[:12]} was scored with"
        judged.faults.append(Fault("network.other", why))
        return None
    return tensors


def _compare(judged: Judged, sketches: Sequence[networks.Sketch]) -> int:
    """Search for copied networks; return the number of other networks compared."""
    others = list(networks.read_others(judged.places, {record.backbone for record in judged.measured}))
    for a, b, apart in networks.copies(sketches, others):
        near = f"weights of {a} are {apart:.2g} away from those of {b}; independent trainings are more than {networks.NEAR} apart"
        if explained(a.record, b.record, equal=apart == 0):
            judged.notes.append(f"{near}; expected, as both start from the same weights with the same seed")
        else:
            judged.faults.append(Fault("copy.network", near))
    return len(others)


def _of_images(store: Store, record: RunRecord, images: list[tuple[str, int]]) -> Scored:
    of = {split: read_evidence(store, record, split) for split in {split for split, _ in images}}
    return {str(of[split].image_ids[i]): (of[split].confusion[i], of[split].weighted_f[i]) for split, i in images}


def _prediction_faults(
    net: Network, record: RunRecord, target: Target, protocol: Protocol, scored: Scored
) -> Iterator[Fault]:
    """Compare predictions with the evidence: pixels and weighted F-measure per image, IoU over all images."""
    k = len(record.classes)
    ours, theirs = np.zeros((k, k), np.int64), np.zeros((k, k), np.int64)
    frames = [
        frame for split in (TEST, *target.further) for frame in open_split(target, split, protocol, only=scored.keys())
    ]
    if missing := sorted(scored.keys() - {frame.id for frame in frames}):
        yield Fault("network.predictions", f"{missing[0]} is in no test split of {record.target} here")
    for frame, pred in predict(net, frames, protocol, lambda *_, **__: None):
        confusion, weighted = scored[frame.id]
        predicted = confusion_matrix(pred, frame.label, k)
        ours, theirs = ours + predicted, theirs + confusion
        if (off := np.abs(predicted - confusion).sum() / 2) > TOLERATED * frame.label.size:
            why = f"on {frame.id} {int(off):,} pixels predicted by its network differ from its evidence"
            yield Fault("network.predictions", why)
        values = weighted_fmeasure(pred, frame.label, k, beta_squared=protocol.beta_squared)
        if not np.allclose(values, weighted, atol=CLOSE, rtol=0, equal_nan=True):
            why = f"on {frame.id} the weighted F-measure of its network differs from its evidence"
            yield Fault("network.predictions", why)
    apart = np.abs(metrics.class_iou(ours) - metrics.class_iou(theirs))
    for name, value in zip(record.classes, apart, strict=True):
        if value > CLOSE:
            why = f"over the drawn images the IoU of {name} differs by {value:.3f} from its evidence"
            yield Fault("network.predictions", why)
