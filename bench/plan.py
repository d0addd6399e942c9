"""The plan of a matrix: its cells, held against what the store has. Loads no torch and writes nothing."""

import functools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench import Diverged
from bench.matrix import Matrix
from bench.sources import Sources
from bench.targets import Target
from bench.trials import read_trials, tuning_of
from bench.units import KINDS, NETWORK, Unit
from pretrain_sources.corpus import CorpusError, read_corpus
from pretrain_sources.pool import Pool
from results import record_files
from results.record import FAILED_STATUSES, Pretraining, RunRecord, Status, Tuning
from results.store import Store

TABLES = ("images.parquet", "masks.parquet")  # of a corpus


@dataclass(frozen=True)
class Known:
    """What a plan has to know of a record."""

    cell: str
    status: Status
    reason: str | None
    miou: float | None


@dataclass(frozen=True)
class Plan:
    """What a matrix asks for, held against what the store has."""

    finals: tuple[Unit, ...]
    todo: tuple[Unit, ...]  # each after those that it needs
    skipped: tuple[tuple[Unit, str], ...]  # finals that cannot be run here, and why
    records: dict[str, Known] = field(default_factory=dict)  # of finals that are in the store, by fingerprint

    def count(self, *statuses: Status) -> int:
        """How many finals the store holds with one of these statuses."""
        return sum(record.status in statuses for record in self.records.values())


def make_plan(
    matrix: Matrix,
    target: Target,
    pool: Pool | None,
    store: Store,
    weights: Path,
    retry: Sequence[str] = (),
    keep: bool = False,
) -> Plan:
    """What is to do. `retry` names the failed statuses that count as not done; `keep`: a network that is not there is not done."""
    finals: list[Unit] = []
    todo: dict[str, Unit] = {}
    skipped: list[tuple[Unit, str]] = []
    records: dict[str, Known] = {}
    in_store = _known(store)
    sources = Sources(matrix.cards, matrix.protocol, target.content_hash, pool, weights, store)
    turn: dict[str, int] = {}  # fingerprint -> place of the first cell that needs it, among those with something to do
    place = 0
    for cell in matrix.cells:
        cell_finals = sources.finals(cell, matrix.backbones[cell.backbone])
        finals += cell_finals
        found = {unit.fingerprint: in_store[unit.fingerprint] for unit in cell_finals if unit.fingerprint in in_store}
        records |= found
        missing = [
            unit
            for unit in cell_finals
            if not _settled(found.get(unit.fingerprint), retry) or (keep and not is_kept(store, unit.fingerprint))
        ]
        needed = _needed(missing, store)
        if stops := [stop for need in needed.values() if (stop := sources.obstacle(need))]:
            skipped += [(unit, stops[0]) for unit in missing]
        else:
            for unit in (*needed.values(), *missing):
                todo[unit.fingerprint] = unit
                turn.setdefault(unit.fingerprint, place)
            place += bool(missing)

    # cell by cell, so that the board fills; the early stages of one before the finals of the one before it, because a study
    # that starts last would keep one core busy while the others have nothing left
    def key(unit: Unit) -> tuple[int, int]:
        return turn[unit.fingerprint] - (unit.kind != "final"), KINDS.index(unit.kind)

    return Plan(tuple(finals), tuple(sorted(todo.values(), key=key)), tuple(skipped), records)


def _known(store: Store) -> dict[str, Known]:
    """Every readable record of the store, by the fingerprint of its run."""
    if not store.root.is_dir():
        return {}
    from results.table import own_runs  # pandas takes its time

    runs = own_runs(store)[["run", "cell", "status", "reason", "miou"]]
    plain = runs.astype(object).where(runs.notna(), None)
    return {run: Known(*fields) for run, *fields in plain.itertuples(index=False)}


def _needed(units: Iterable[Unit], store: Store) -> dict[str, Unit]:
    """What has to be done before these units, each after those that it needs; what is done needs nothing more."""
    needed: dict[str, Unit] = {}
    for unit in units:
        for need in unit.needs:
            if need.fingerprint not in needed and not is_done(store, need):
                needed |= _needed([need], store) | {need.fingerprint: need}
    return needed


def find_record(store: Store, unit: Unit) -> RunRecord | None:
    """The record of this very final, or None where there is none that can be read."""
    cell = unit.cell
    folder = store.run_dir(
        cell.target, cell.protocol, cell.source, cell.backbone, unit.replicate or 0, unit.fingerprint
    )
    return record_files.find_record(store, folder, unit.fingerprint)


def is_done(store: Store, unit: Unit) -> bool:
    """Whether a unit that is no final has left its result whole; what was torn since is made anew."""
    learner = (
        unit.learner if unit.kind == "pretrain" else None
    )  # of what is permuted another unit tells how it was trained
    told = learner is None or _is_told(store.unit_dir("pretrain", learner.fingerprint))
    return told and is_left(store, unit.kind, unit.fingerprint)


def is_left(store: Store, kind: str, fingerprint: str) -> bool:
    """Whether the result of a unit that is no final is there, whole."""
    folder = store.unit_dir(kind, fingerprint)
    try:
        if kind == "tune":
            tuning = Tuning.model_validate_json((folder / "tune.json").read_bytes())
            return tuning == tuning_of(read_trials(folder / "trials.jsonl"))
        if kind == "corpus":
            return _is_corpus(folder, *(_state(folder / name) for name in ("manifest.json", *TABLES)))
        certificate = json.loads((folder / "certificate.json").read_bytes())
        sizes = {"encoder.safetensors": certificate["encoder_bytes"], **certificate.get("file_bytes", {})}
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Diverged):
        return False


def is_kept(store: Store, run: str) -> bool:
    """Whether the network of this run is there, whole."""
    try:
        with (store.unit_dir("final", run) / NETWORK).open("rb") as file:
            head = int.from_bytes(file.read(8), "little")  # a safetensors file: length of its head, head, values
            ends = [held["data_offsets"][1] for name, held in json.loads(file.read(head)).items() if name[:2] != "__"]
            return bool(file.seek(0, os.SEEK_END) == 8 + head + max(ends))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
        return False


def _is_told(folder: Path) -> bool:
    """Whether a pretraining on a corpus says how it went."""
    try:
        return bool(Pretraining.model_validate_json((folder / "pretrain.json").read_bytes()))
    except (OSError, ValueError):
        return False


def _state(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_size, info.st_mtime_ns


@functools.lru_cache(maxsize=1024)
def _is_corpus(folder: Path, *states: tuple[int, int]) -> bool:
    """Whether a corpus and its tables are whole; of a label map only who reads it can say. Looked at once for each state."""
    try:
        read_corpus(folder)
        pq.read_metadata(folder / TABLES[1])
    except (OSError, CorpusError, pa.ArrowException):
        return False
    return True


def _settled(record: Known | None, retry: Sequence[str]) -> bool:
    return record is not None and (
        record.status == "ok" or (record.status in FAILED_STATUSES and record.status not in retry)
    )
