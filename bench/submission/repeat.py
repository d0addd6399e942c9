"""What a bundle claims, done anew: random test images predicted with its networks, or one of its runs trained again."""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from scipy import stats

from backbones import network
from backbones.spec import find_backbone
from backbones.transfer import LoadFailed, state_sha256
from bench import BenchError, checkpoints, provenance
from bench.batches import open_split
from bench.score import confusion_matrix, weighted_fmeasure
from bench.sources import Sources
from bench.spec import Cell, Protocol
from bench.submission import networks
from bench.submission.copies import explained
from bench.submission.verify import Judged
from bench.targets import Target, open_pool, open_target
from bench.targets.mapping import map_target
from bench.train import Progress, predict
from bench.units import Context, Unit
from bench.work import perform
from pretrain_sources.catalog import catalog, closure, collect, find_source
from results import metrics
from results.bundle import CARD
from results.evidence import Evidence
from results.evidence_files import read_evidence
from results.record import RunRecord
from results.record_files import find_record
from results.store import Store, write_atomic
from safe_files import MOST_TEXT_BYTES, read_regular

TOLERATED = 1e-3  # share of an image's pixels that another processor may predict otherwise
CLOSE = 0.01  # IoU of a class over the drawn images, and weighted F-measure on one, that may differ
LEAST_REPLICATES = 3
PREDICTION_LEVEL = 0.95  # of the interval that a run made on another processor must lie in


def load_weights(judged: Judged, source: Path, weights: Path) -> tuple[list[str], str]:
    """(faults, what was seen): the checkpoints that the submitter's card names, loaded anew and held against the certificates.

    Raises:
        FileError: there is no such card. BenchError: a file cannot be read, or is not the one that the card means.
    """
    faults, loaded = [], 0
    known = collect([source / CARD], catalog())
    cells = {(r.source, r.backbone, r.weights_sha256) for r in judged.records if r.status == "ok"}
    for name, backbone, told in sorted(cells, key=str):
        card = find_source(name, known)
        if not card.checkpoints:
            continue
        try:
            found = state_sha256(checkpoints.brought(card, find_backbone(backbone), weights).tensors)
        except LoadFailed as error:
            raise BenchError(str(error)) from error
        loaded += 1
        if found != told:
            faults.append(
                f"{name} x {backbone}: the file that its card names gives other weights than its certificate is of"
            )
    return faults, f"weights of {loaded} checkpoint{'s' * (loaded != 1)} loaded anew from its file"


def spot(
    judged: Judged, folder: Path, data: Path, count: int, seed: int, report: Progress
) -> tuple[list[str], list[str]]:
    """(faults, what was seen): test images of runs predicted again with the networks FOLDER/<run>.safetensors, and held against the
    evidence. `count` pairs of a run and an image, drawn without replacement; all, where there are fewer. Each network is compared
    with every other that is at hand, drawn or not.

    Raises:
        BenchError: the target's data cannot be used.
    """
    store, faults = Store(judged.runs), []
    runs = sorted((record for record in judged.records if record.status == "ok"), key=lambda record: record.run)
    pairs = [(record.run, image) for record in runs if record.scores for image in range(record.scores.test_images)]
    drawn: dict[str, list[int]] = defaultdict(list)
    for place in np.random.default_rng(seed).permutation(len(pairs))[:count]:
        run, image = pairs[place]
        drawn[run].append(image)
    targets: dict[tuple[str, ...], Target] = {}  # opened once: that reads every file
    done, sketches = 0, []
    for record in runs:
        protocol = Protocol.model_validate(record.settings["protocol"])
        path = folder / f"{record.run}.safetensors"
        try:
            tensors = safetensors.torch.load_file(path)
        except (OSError, SafetensorError) as error:
            faults += [f"the network {path} cannot be read: {error}"] if record.run in drawn else []
            continue
        if state_sha256(tensors) != record.network_sha256:
            faults.append(f"{path.name} is not the network that the run {record.run[:12]} was scored with")
            continue
        sketches.append(networks.sketch(record, path, tensors))
        if record.run not in drawn:
            continue
        board = (record.target, record.protocol, record.target_hash)
        target = targets[board] = targets.get(board) or _target(record, protocol, data)
        net = network.build(find_backbone(record.backbone), len(record.classes))
        try:
            net.load_state_dict(tensors)
        except RuntimeError as error:
            faults.append(f"{path.name} is no network of {record.backbone}: {' '.join(str(error).split())[:200]}")
            continue
        where = f"{record.source} x {record.backbone} r{record.replicate}"
        told = _of_images(read_evidence(store, record), drawn[record.run])
        faults += [f"{where}: {fault}" for fault in _otherwise(net, record, target, protocol, told)]
        done += len(drawn[record.run])
        report(done, min(count, len(pairs)))
    others = list(networks.read_others(judged.places, {record.backbone for record in runs}))
    for a, b, apart in networks.copies(sketches, others):
        near = f"the weights of {a} are {apart:.2g} away from those of {b}, and two trainings are above {networks.NEAR}"
        if explained(a.record, b.record):
            judged.notes.append(f"{near}: they start from the same weights and draws")
        else:
            faults.append(near)
    seen = f"{done} random test images predicted anew"
    return faults, [seen, f"{len(sketches)} networks compared with each other and with {len(others)} others at hand"]


Told = dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]  # image -> its (K, K) and (K,)


def _of_images(evidence: Evidence, images: list[int]) -> Told:
    return {str(evidence.image_ids[i]): (evidence.confusion[i], evidence.weighted_f[i]) for i in images}


def _otherwise(
    net: network.Network, record: RunRecord, target: Target, protocol: Protocol, told: Told
) -> Iterator[str]:
    """In what the network's predictions are not those of the evidence: pixels and weighted F-measure of an image, IoU over all."""
    k = len(record.classes)
    ours, theirs = np.zeros((k, k), np.int64), np.zeros((k, k), np.int64)
    for frame, pred in predict(
        net, open_split(target, "test", protocol, only=told.keys()), protocol, lambda *_, **__: None
    ):
        confusion, weighted = told[frame.id]
        found = confusion_matrix(pred, frame.label, k)
        ours, theirs = ours + found, theirs + confusion
        if (off := np.abs(found - confusion).sum() / 2) > TOLERATED * frame.label.size:
            yield f"on {frame.id} its network predicts {int(off):,} pixels otherwise than its evidence says"
        values = weighted_fmeasure(pred, frame.label, k, beta_squared=protocol.beta_squared)
        if not np.allclose(values, weighted, atol=CLOSE, rtol=0, equal_nan=True):
            yield f"on {frame.id} the weighted F-measure of its network is not that of its evidence"
    apart = np.abs(metrics.class_iou(ours) - metrics.class_iou(theirs))
    for name, value in zip(record.classes, apart, strict=True):
        if value > CLOSE:
            yield f"over the drawn images the IoU of {name} is {value:.3f} away from what its evidence says"


def reproduce(
    judged: Judged,
    source: Path | None,
    data: Path,
    pool: Path | None,
    weights: Path,
    scratch: Path,
    seed: int,
    report: Progress,
) -> tuple[list[str], str]:
    """(faults, what was seen): one random run of the bundle trained again from its sources, with the schedule that it chose.

    source: folder with the submitter's card and what it names; None: the bundle's card, where that fetches what it needs.
    scratch: a store of its own, in which a killed call goes on.

    Raises:
        BenchError: the target's data or the source cannot be used.
    """
    runs = sorted((record for record in judged.records if record.status == "ok"), key=lambda record: record.run)
    record = runs[int(np.random.default_rng(seed).integers(len(runs)))]
    protocol = Protocol.model_validate(record.settings["protocol"])
    target = _target(record, protocol, data)
    if source is None and judged.name is not None and any(one.path for one in judged.cards[judged.name].checkpoints):
        raise BenchError("its card names a file: name the submitter's folder with --source")
    known = judged.cards if source is None else collect([source / CARD], catalog())
    cards = closure([find_source(record.source, known)], known)
    store = Store(scratch)
    store.make()
    images = open_pool(target, pool) if any(card.recipe for card in cards.values()) else None
    made = Sources(cards, protocol, target.content_hash, images, weights, store)
    cell = Cell(**{name: getattr(record, name) for name in Cell.model_fields})
    final = made.finals(cell, find_backbone(record.backbone))[record.replicate]
    what = f"{final.cell} r{record.replicate}"
    if final.fingerprint != record.run:
        return [f"{what}: made of what is here it would be another run ({_differing(final, record)})"], ""
    _leave_tuning(judged, record, final, store)
    context = Context(store.root.absolute(), target, weights.absolute(), images, provenance.commit())
    for unit in [*_needed(final), final]:
        if stop := made.obstacle(unit):
            raise BenchError(f"{unit} cannot be done here: {stop}")
        outcome = perform(unit, context, report)
        if outcome.status != "ok":
            return [f"{what}: {unit} ended as {outcome.status}: {outcome.reason}"], ""
    again = find_record(store, store.folder_of(record), record.run)
    if again is None or again.scores is None or record.scores is None:
        return [f"{what}: it left no record"], ""
    return _same(judged, record, again, what)


def _same(judged: Judged, theirs: RunRecord, ours: RunRecord, what: str) -> tuple[list[str], str]:
    """Equal, or on another processor within what the cell's own replicates allow for one more of them."""
    assert theirs.scores is not None
    assert ours.scores is not None
    if ours.scores == theirs.scores:
        return [], f"{what} trained again: the same scores, bit for bit"
    alike = [(made.device, made.packages, made.threads) for made in (ours.provenance, theirs.provenance) if made]
    for metric in ("miou", "weighted_f"):
        a, b = getattr(ours.scores, metric), getattr(theirs.scores, metric)
        told = f"{what} trained again: {metric} {a:.4f}, its record says {b:.4f}"
        if alike[0] == alike[1]:
            return [f"{told}; on the same processor with the same packages they must be equal"], ""
        values = [getattr(r.scores, metric) for r in judged.records if r.cell == theirs.cell and r.scores is not None]
        if len(values) < LEAST_REPLICATES:
            raise BenchError(
                f"{told}, on another processor or with other packages; {len(values)} replicates cannot say if that is far"
            )
        spread = float(
            stats.t.ppf((1 + PREDICTION_LEVEL) / 2, len(values) - 1)
            * np.std(values, ddof=1)
            * math.sqrt(1 + 1 / len(values))
        )
        low, high = np.mean(values) - spread, np.mean(values) + spread
        if not low <= a <= high:
            return [f"{told}; one more replicate should lie within {low:.4f}..{high:.4f}"], ""
    return (
        [],
        f"{what} trained again on another processor or with other packages: within what its replicates allow for one more",
    )


def _target(record: RunRecord, protocol: Protocol, data: Path) -> Target:
    target = map_target(open_target(record.target, data), protocol.class_map)
    if target.content_hash != record.target_hash:
        raise BenchError(
            f"{record.target} in {data} is not the {record.target} that the bundle was scored on: its content hash differs"
        )
    return target


def _needed(unit: Unit) -> list[Unit]:
    """What comes before a unit, the first first; tuning left out, whose result is the bundle's."""
    before = [need for need in unit.needs if need.kind != "tune"]
    found = {each.fingerprint: each for need in before for each in [*_needed(need), need]}
    return list(found.values())


def _leave_tuning(judged: Judged, record: RunRecord, final: Unit, store: Store) -> None:
    tuned = final.need("tune")
    assert tuned is not None
    assert record.tuning is not None
    folder = store.unit_dir("tune", tuned.fingerprint)
    trials = Store(judged.runs).folder_of(record) / "trials.jsonl"
    write_atomic(folder / "trials.jsonl", read_regular(trials, MOST_TEXT_BYTES))
    write_atomic(folder / "tune.json", record.tuning.model_dump_json().encode())


def _differing(final: Unit, record: RunRecord) -> str:
    """Which inputs of a run are not those of the record."""
    ours, theirs = final.spelled_out(), record.settings["identity"]
    names = [name for name in ours if name != "needs" and ours[name] != theirs.get(name)]
    pairs = zip(ours.get("needs", ()), theirs.get("needs", ()), strict=False)
    names += [f"{a['kind']}: {name}" for a, b in pairs for name in a if name != "needs" and a[name] != b.get(name)]
    return f"what differs: {', '.join(names) or 'what its units need'}"
