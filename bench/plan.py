"""The plan of a matrix: its cells, held against what the store has. Loads no torch and writes nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backbones import imagenet
from bench.matrix import Matrix
from bench.targets import Target
from bench.units import KINDS, Unit, finals_of
from results.record import FAILED_STATUSES, RunRecord, Status, Tuning
from results.store import Store


@dataclass(frozen=True)
class Plan:
    """What a matrix asks for, held against what the store has."""

    finals: tuple[Unit, ...]
    todo: tuple[Unit, ...]  # each after those that it needs
    skipped: tuple[tuple[Unit, str], ...]  # finals that cannot be run here, and why
    records: dict[str, RunRecord] = field(default_factory=dict)  # of finals that are in the store, by fingerprint

    def count(self, *statuses: Status) -> int:
        """How many finals the store holds with one of these statuses."""
        return sum(record.status in statuses for record in self.records.values())


def make_plan(matrix: Matrix, target: Target, store: Store, weights: Path, retry: Sequence[str] = ()) -> Plan:
    """What is to do. `retry` names the failed statuses that count as not done."""
    finals: list[Unit] = []
    todo: dict[str, Unit] = {}
    skipped: list[tuple[Unit, str]] = []
    records: dict[str, RunRecord] = {}
    for cell in matrix.cells:
        card, backbone = matrix.sources[cell.source], matrix.backbones[cell.backbone]
        origin = imagenet.locate(backbone, weights) if card.kind == "imagenet" else None
        cell_finals = finals_of(cell, card, backbone, matrix.protocol, origin, target.content_hash)
        finals += cell_finals
        found = {unit.fingerprint: record for unit in cell_finals if (record := find_record(store, unit)) is not None}
        records |= found
        missing = [unit for unit in cell_finals if not _settled(found.get(unit.fingerprint), retry)]
        needed = {need.fingerprint: need for unit in missing for need in unit.needs if not is_done(store, need)}
        fetching = any(need.kind == "pretrain" for need in needed.values())
        if fetching and (stop := imagenet.obstacle(backbone, origin, weights)):
            skipped += [(unit, f"{stop.reason}; to fetch: {stop.command}") for unit in missing]
        else:
            todo |= needed | {unit.fingerprint: unit for unit in missing}
    # early stages first: a study that starts last would keep one core busy while the others have nothing left
    order = sorted(todo.values(), key=lambda unit: KINDS.index(unit.kind))
    return Plan(tuple(finals), tuple(order), tuple(skipped), records)


def find_record(store: Store, unit: Unit) -> RunRecord | None:
    """The record of this very final, or None where there is none that can be read."""
    cell = unit.cell
    folder = store.run_dir(
        cell.target, cell.protocol, cell.source, cell.backbone, unit.replicate or 0, unit.fingerprint
    )
    return store.find_record(folder, unit.fingerprint)


def is_done(store: Store, unit: Unit) -> bool:
    """Whether a unit that is no final has left its result whole; what was torn since is made anew."""
    folder = store.unit_dir(unit.kind, unit.fingerprint)
    try:
        if unit.kind == "tune":
            Tuning.model_validate_json((folder / "tune.json").read_bytes())
            return True
        size = json.loads((folder / "certificate.json").read_bytes())["encoder_bytes"]
        return bool(size == (folder / "encoder.safetensors").stat().st_size)
    except (OSError, ValueError, KeyError):
        return False


def _settled(record: RunRecord | None, retry: Sequence[str]) -> bool:
    return record is not None and (
        record.status == "ok" or (record.status in FAILED_STATUSES and record.status not in retry)
    )
