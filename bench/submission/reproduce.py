"""Train one random run of a bundle again, and load the checkpoints of its card again."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from backbones.registry import known_backbone
from backbones.transfer import LoadError, state_sha256
from bench import BenchError
from bench.plan import card_weights
from bench.plan.cost import work_of
from bench.plan.graph import Graph, InputsHere
from bench.plan.outcome import Context
from bench.plan.unit_folder import TRIALS_FILE, TUNING_FILE, folder_of
from bench.plan.units import FinalUnit, Unit, all_needed
from bench.run.worker import perform
from bench.spec import Protocol
from bench.submission.faults import Fault
from bench.submission.identity import cell_of, differing
from bench.submission.judged import Judged
from bench.submission.target import target_of
from bench.targets import open_pool
from bench.train import provenance
from bench.train.loop import Progress
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog, closure, collect, find_source
from results.bundle import CARD
from results.record import TEST, RunRecord
from results.record_files import find_record
from results.store import Store, write_atomic
from safe_io.files import MOST_TEXT_BYTES, read_regular

LEAST_REPLICATES = 3
WITHIN = 0.95  # level of the prediction interval for a run on another processor


@dataclass(frozen=True)
class Sources:
    """Inputs for training a run again.

    Attributes:
        folder: the submitter's card and its files; None: the bundle's card, if it downloads all that it needs.
        data: folder of targets. pool: unlabelled images instead of the target's. weights: the user's folder.
        scratch: separate store, from which a killed call resumes.
    """

    folder: Path | None
    data: Path
    pool: Path | None
    weights: Path
    scratch: Path


def load_weights(judged: Judged, source: Path, weights: Path) -> str:
    """Load the checkpoints of the submitter's card and compare them with the recorded weights.

    Adds faults to `judged`; returns a summary.

    Raises:
        FileError: there is no such card. BenchError: a file cannot be read, or does not match the card.
    """
    loaded = 0
    known = collect([source / CARD], catalog())
    for name, backbone, recorded in sorted(
        {(r.source, r.backbone, r.weights_sha256) for r in judged.measured}, key=str
    ):
        card = find_source(name, known)
        if not card.checkpoints:
            continue
        try:
            sha256 = state_sha256(card_weights.brought(card, known_backbone(backbone, judged.trusted), weights).tensors)
        except LoadError as error:
            raise BenchError(str(error)) from error
        loaded += 1
        if sha256 != recorded:
            why = f"{name} x {backbone}: the file that its card names gives other weights than were recorded"
            judged.faults.append(Fault("weights.other_file", why))
    return f"weights of {loaded} checkpoint{'s' * (loaded != 1)} loaded again from file"


def reproduce(judged: Judged, sources: Sources, seed: int, report: Progress) -> list[str]:
    """Train one random run of the bundle again, with its chosen schedule, and compare the scores.

    Adds faults to `judged`; returns a summary.

    Raises:
        BenchError: the target's data or the source cannot be used.
    """
    record = judged.measured[int(np.random.default_rng(seed).integers(len(judged.measured)))]
    protocol = Protocol.model_validate(record.settings["protocol"])
    target = target_of(record, protocol, sources.data, judged.target_of(record))
    cards = _cards(judged, record, sources.folder)
    store = Store(sources.scratch)
    store.make()
    pool = open_pool(target, sources.pool) if any(card.needs_pool for card in cards.values()) else None
    inputs = InputsHere(record.target, pool, sources.weights, store)
    backbone = judged.backbone_of(record)
    final = Graph(cards, protocol, target.content_hash, inputs).final(cell_of(record), backbone, record.replicate)
    what = f"{final.cell} r{record.replicate}"
    if final.fingerprint != record.run:
        why = f"{what}: its inputs here give another run ({_differing(final, record)})"
        judged.faults.append(Fault("reproduced.identity", why))
        return []
    _copy_tuning(judged, record, final, store)
    context = Context(store.root.absolute(), target, sources.weights.absolute(), pool, provenance.commit())
    units = units_to_run(final)
    steps = [work_of(unit, target) for unit in units]
    for number, unit in enumerate(units):
        if stop := inputs.obstacle(unit):
            raise BenchError(f"{unit} cannot be run here: {stop}")
        outcome = perform(unit, context, _part_of(report, sum(steps[:number]), sum(steps)))
        if outcome.status != "ok":
            why = f"{what}: {unit} ended as {outcome.status}: {outcome.reason}"
            judged.faults.append(Fault("reproduced.failed", why))
            return []
    again = find_record(store, store.folder_of(record), record.run)
    if again is None:
        judged.faults.append(Fault("reproduced.failed", f"{what}: no record was written"))
        return []
    summary = _compare(judged, record, again, f"{what} trained again")
    return [f"{summary} (seed {seed})"] if summary else []


def _part_of(report: Progress, before: int, total: int) -> Progress:
    """Report the progress of one unit as part of the total of all, after `before` steps of other units."""

    def part(done: int, _: int, /, **facts: float) -> None:
        report(min(before + done, total), total, **facts)

    return part


def units_to_run(final: FinalUnit) -> list[Unit]:
    """Return the run and its own pretraining, in order. Tuning, and the pretraining that it uses, come from the bundle."""
    first = final.pretrained
    return [*(all_needed(first) if first else ()), *((first,) if first else ()), final]


def _cards(judged: Judged, record: RunRecord, folder: Path | None) -> dict[str, SourceCard]:
    if folder is None and judged.name is not None and any(one.path for one in judged.cards[judged.name].checkpoints):
        raise BenchError("its card names a file: give the submitter's folder with --source")
    known = judged.cards if folder is None else collect([folder / CARD], catalog())
    return dict(closure([find_source(record.source, known)], known))


def _compare(judged: Judged, theirs: RunRecord, ours: RunRecord, what: str) -> str | None:
    """Summarise if scores are equal or, on another processor, plausible for one more replicate; else add a fault."""
    if ours.by_split.keys() != theirs.by_split.keys():
        why = f"{what}: scored on {', '.join(ours.by_split)}, recorded on {', '.join(theirs.by_split)}"
        judged.faults.append(Fault("reproduced.scores", why))
        return None
    if all(scores.agrees_with(theirs.by_split[split]) for split, scores in ours.by_split.items()):
        return f"{what}: the same scores, bit for bit"
    alike = [(made.device, made.packages, made.threads) for made in (ours.provenance, theirs.provenance) if made]
    for split, metric in itertools.product(_differing_first(ours, theirs), ("miou", "weighted_f")):
        a, b = (getattr(record.by_split[split], metric) for record in (ours, theirs))
        scores = f"{what}: {metric}{'' if split == TEST else f' on {split}'} {a:.4f}, recorded {b:.4f}"
        if alike[0] == alike[1]:
            why = f"{scores}; on the same processor with the same packages they must be equal"
            judged.faults.append(Fault("reproduced.scores", why))
            return None
        same = [record.by_split for record in judged.records if record.cell == theirs.cell]
        values = [getattr(by_split[split], metric) for by_split in same if split in by_split]
        if len(values) < LEAST_REPLICATES:
            raise BenchError(
                f"{scores}, on another processor or with other packages; {len(values)} replicates are too few to judge that"
            )
        low, high = _one_more(values)
        if not low <= a <= high:
            why = f"{scores}; one more replicate should be within {low:.4f}..{high:.4f}"
            judged.faults.append(Fault("reproduced.scores", why))
            return None
    return f"{what} on another processor or with other packages: within the prediction interval of its replicates"


def _differing_first(ours: RunRecord, theirs: RunRecord) -> list[str]:
    """Return the test splits, those with different scores first."""
    return sorted(theirs.by_split, key=lambda split: ours.by_split[split].agrees_with(theirs.by_split[split]))


def _one_more(values: list[float]) -> tuple[float, float]:
    """Prediction interval for one more replicate, from Student's t."""
    quantile = float(stats.t.ppf((1 + WITHIN) / 2, len(values) - 1))
    spread = quantile * float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / len(values))
    return float(np.mean(values)) - spread, float(np.mean(values)) + spread


def _copy_tuning(judged: Judged, record: RunRecord, final: FinalUnit, store: Store) -> None:
    if final.tuned is None:
        return
    assert record.tuning is not None
    folder = folder_of(store, final.tuned)
    trials = Store(judged.runs).folder_of(record) / TRIALS_FILE
    write_atomic(folder / TRIALS_FILE, read_regular(trials, MOST_TEXT_BYTES))
    write_atomic(folder / TUNING_FILE, record.tuning.model_dump_json().encode())


def _differing(final: FinalUnit, record: RunRecord) -> str:
    """List the inputs of a run that differ from the record's."""
    entries = differing(final.spelled_out(), record.settings["identity"])
    return f"different: {', '.join(f'{each.kind}: {each.name}' for each in entries) or 'its fingerprint'}"
