"""One random run of a bundle trained again from its sources; and the checkpoints of its card loaded anew."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from backbones.registry import find_backbone
from backbones.transfer import LoadError, state_sha256
from bench import BenchError
from bench.plan import card_weights
from bench.plan.graph import Graph, InputsHere
from bench.plan.outcome import Context
from bench.plan.unit_folder import folder_of
from bench.plan.units import FinalUnit, TuneUnit, all_needed
from bench.run.worker import perform
from bench.spec import Cell, Protocol
from bench.submission.faults import Fault
from bench.submission.identity import differing
from bench.submission.judged import Judged
from bench.submission.target import target_of
from bench.targets import open_pool
from bench.train import provenance
from bench.train.loop import Progress
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog, closure, collect, find_source
from results.bundle import CARD
from results.record import RunRecord
from results.record_files import find_record
from results.store import Store, write_atomic
from safe_io.files import MOST_TEXT_BYTES, read_regular

LEAST_REPLICATES = 3
WITHIN = 0.95  # level of the prediction interval that a run made on another processor must lie in


@dataclass(frozen=True)
class Sources:
    """What a run is trained again from.

    Attributes:
        folder: with the submitter's card and what it names; None: the bundle's card, where that fetches what it needs.
        data: folder of targets. pool: unlabelled images in place of the target's own. weights: the user's folder.
        scratch: a store of its own, in which a killed call goes on.
    """

    folder: Path | None
    data: Path
    pool: Path | None
    weights: Path
    scratch: Path


def load_weights(judged: Judged, source: Path, weights: Path) -> str:
    """Adds the faults to `judged` and returns what was seen: the checkpoints that the submitter's card names, loaded anew and held
    against the certificates.

    Raises:
        FileError: there is no such card. BenchError: a file cannot be read, or is not the one that the card means.
    """
    loaded = 0
    known = collect([source / CARD], catalog())
    for name, backbone, told in sorted({(r.source, r.backbone, r.weights_sha256) for r in judged.measured}, key=str):
        card = find_source(name, known)
        if not card.checkpoints:
            continue
        try:
            found = state_sha256(card_weights.brought(card, find_backbone(backbone), weights).tensors)
        except LoadError as error:
            raise BenchError(str(error)) from error
        loaded += 1
        if found != told:
            why = f"{name} x {backbone}: the file that its card names gives other weights than its certificate is of"
            judged.faults.append(Fault("weights.other_file", why))
    return f"weights of {loaded} checkpoint{'s' * (loaded != 1)} loaded anew from its file"


def reproduce(judged: Judged, sources: Sources, seed: int, report: Progress) -> list[str]:
    """Adds the faults to `judged` and returns what was seen: one random run of the bundle trained again, with the schedule that it
    chose.

    Raises:
        BenchError: the target's data or the source cannot be used.
    """
    record = judged.measured[int(np.random.default_rng(seed).integers(len(judged.measured)))]
    protocol = Protocol.model_validate(record.settings["protocol"])
    target = target_of(record, protocol, sources.data)
    cards = _cards(judged, record, sources.folder)
    store = Store(sources.scratch)
    store.make()
    pool = open_pool(target, sources.pool) if any(card.recipe for card in cards.values()) else None
    inputs = InputsHere(record.target, pool, sources.weights, store)
    cell = Cell(**{name: getattr(record, name) for name in Cell.model_fields})
    backbone = find_backbone(record.backbone)
    final = Graph(cards, protocol, target.content_hash, inputs).final(cell, backbone, record.replicate)
    what = f"{final.cell} r{record.replicate}"
    if final.fingerprint != record.run:
        why = f"{what}: made of what is here it would be another run ({_differing(final, record)})"
        judged.faults.append(Fault("reproduced.identity", why))
        return []
    _leave_tuning(judged, record, final, store)
    context = Context(store.root.absolute(), target, sources.weights.absolute(), pool, provenance.commit())
    for unit in (*(need for need in all_needed(final) if not isinstance(need, TuneUnit)), final):
        if stop := inputs.obstacle(unit):
            raise BenchError(f"{unit} cannot be done here: {stop}")
        outcome = perform(unit, context, report)
        if outcome.status != "ok":
            why = f"{what}: {unit} ended as {outcome.status}: {outcome.reason}"
            judged.faults.append(Fault("reproduced.failed", why))
            return []
    again = find_record(store, store.folder_of(record), record.run)
    if again is None:
        judged.faults.append(Fault("reproduced.failed", f"{what}: it left no record"))
        return []
    told = _same(judged, record, again, f"{what} trained again")
    return [f"{told} (seed {seed})"] if told else []


def _cards(judged: Judged, record: RunRecord, folder: Path | None) -> dict[str, SourceCard]:
    if folder is None and judged.name is not None and any(one.path for one in judged.cards[judged.name].checkpoints):
        raise BenchError("its card names a file: name the submitter's folder with --source")
    known = judged.cards if folder is None else collect([folder / CARD], catalog())
    return dict(closure([find_source(record.source, known)], known))


def _same(judged: Judged, theirs: RunRecord, ours: RunRecord, what: str) -> str | None:
    """Equal, or on another processor within what the cell's own replicates allow for one more of them; None with a fault."""
    assert theirs.scores is not None
    assert ours.scores is not None
    if ours.scores == theirs.scores:
        return f"{what}: the same scores, bit for bit"
    alike = [(made.device, made.packages, made.threads) for made in (ours.provenance, theirs.provenance) if made]
    for metric in ("miou", "weighted_f"):
        a, b = getattr(ours.scores, metric), getattr(theirs.scores, metric)
        told = f"{what}: {metric} {a:.4f}, its record says {b:.4f}"
        if alike[0] == alike[1]:
            why = f"{told}; on the same processor with the same packages they must be equal"
            judged.faults.append(Fault("reproduced.scores", why))
            return None
        values = [getattr(r.scores, metric) for r in judged.records if r.cell == theirs.cell and r.scores is not None]
        if len(values) < LEAST_REPLICATES:
            raise BenchError(
                f"{told}, on another processor or with other packages; {len(values)} replicates cannot say if that is far"
            )
        low, high = _one_more(values)
        if not low <= a <= high:
            why = f"{told}; one more replicate should lie within {low:.4f}..{high:.4f}"
            judged.faults.append(Fault("reproduced.scores", why))
            return None
    return f"{what} on another processor or with other packages: within what its replicates allow for one more"


def _one_more(values: list[float]) -> tuple[float, float]:
    """Prediction interval for one more replicate, from Student's t."""
    quantile = float(stats.t.ppf((1 + WITHIN) / 2, len(values) - 1))
    spread = quantile * float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / len(values))
    return float(np.mean(values)) - spread, float(np.mean(values)) + spread


def _leave_tuning(judged: Judged, record: RunRecord, final: FinalUnit, store: Store) -> None:
    assert record.tuning is not None
    folder = folder_of(store, final.tuned)
    trials = Store(judged.runs).folder_of(record) / "trials.jsonl"
    write_atomic(folder / "trials.jsonl", read_regular(trials, MOST_TEXT_BYTES))
    write_atomic(folder / "tune.json", record.tuning.model_dump_json().encode())


def _differing(final: FinalUnit, record: RunRecord) -> str:
    """Which inputs of a run are not those of the record."""
    found = differing(final.spelled_out(), record.settings["identity"])
    return f"what differs: {', '.join(f'{each.kind}: {each.name}' for each in found) or 'its fingerprint'}"
