"""The plan of a matrix: its units compared with the store. Does not import torch and writes nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.plan.graph import Graph, InputsHere
from bench.plan.matrix import Matrix
from bench.plan.unit import KINDS
from bench.plan.unit_folder import is_done, is_kept
from bench.plan.units import FinalUnit, Unit
from bench.targets import Target
from pretrain_sources.pool import Pool
from results.record import FAILED_STATUSES, Status
from results.store import Store


@dataclass(frozen=True)
class Known:
    """The part of a record that a plan needs."""

    cell: str
    status: Status
    reason: str | None
    miou: float | None


@dataclass(frozen=True)
class Plan:
    """The runs of a matrix, compared with the store."""

    finals: tuple[FinalUnit, ...]
    todo: tuple[Unit, ...]  # each after its needs
    skipped: tuple[tuple[FinalUnit, str], ...]  # finals that cannot be run here, and why
    records: dict[str, Known] = field(default_factory=dict)  # of finals that are in the store, by fingerprint

    def count(self, *statuses: Status) -> int:
        """Count the finals in the store with one of these statuses."""
        return sum(record.status in statuses for record in self.records.values())


@dataclass(frozen=True)
class Sweep:
    """A matrix, and where to run it.

    Attributes:
        data: folder of targets. weights: the user's folder of weights. retry: failed statuses to run again. keep: keep the
            finetuned networks; a run without one is not done.
    """

    matrix: Matrix
    store: Store
    data: Path
    weights: Path
    retry: Sequence[str] = ()
    keep: bool = False


def make_plan(sweep: Sweep, target: Target, pool: Pool | None) -> Plan:
    """Compare a matrix with the store."""
    matrix, store = sweep.matrix, sweep.store
    finals: list[FinalUnit] = []
    todo: dict[str, Unit] = {}
    skipped: list[tuple[FinalUnit, str]] = []
    records: dict[str, Known] = {}
    in_store = _known(store)
    inputs = InputsHere(matrix.target, pool, sweep.weights, store)
    graph = Graph(matrix.cards, matrix.protocol, target.content_hash, inputs)
    turn: dict[str, int] = {}  # fingerprint -> index of the first unfinished cell that needs the unit
    place = 0
    for cell in matrix.cells:
        cell_finals = graph.finals(cell, matrix.backbones[cell.backbone])
        finals += cell_finals
        stored = {unit.fingerprint: in_store[unit.fingerprint] for unit in cell_finals if unit.fingerprint in in_store}
        records |= stored
        missing = [
            unit
            for unit in cell_finals
            if not _settled(stored.get(unit.fingerprint), sweep.retry)
            or (sweep.keep and not is_kept(store, unit.fingerprint))
        ]
        needed = _needed(missing, store)
        if stops := [stop for need in needed.values() if (stop := inputs.obstacle(need))]:
            skipped += [(unit, stops[0]) for unit in missing]
        else:
            for unit in (*needed.values(), *missing):
                todo[unit.fingerprint] = unit
                turn.setdefault(unit.fingerprint, place)
            place += bool(missing)

    # cell by cell, so that the board fills; the early stages of a cell come before the finals of the previous cell, because
    # a study that starts last would keep one core busy while the others are idle
    def key(unit: Unit) -> tuple[int, int]:
        return turn[unit.fingerprint] - (unit.kind != "final"), KINDS.index(unit.kind)

    return Plan(tuple(finals), tuple(sorted(todo.values(), key=key)), tuple(skipped), records)


def _known(store: Store) -> dict[str, Known]:
    """Return every readable record of the store by the fingerprint of its run."""
    if not store.root.is_dir():
        return {}
    from results.table import own_runs  # imports pandas, which is slow

    runs = own_runs(store)[["run", "cell", "status", "reason", "miou"]]
    plain = runs.astype(object).where(runs.notna(), None)
    return {run: Known(*fields) for run, *fields in plain.itertuples(index=False)}


def _needed(units: Iterable[Unit], store: Store) -> dict[str, Unit]:
    """Return the unfinished units that these need, each after its own needs."""
    needed: dict[str, Unit] = {}
    for unit in units:
        for need in unit.needs:
            if need.fingerprint not in needed and not is_done(store, need):
                needed |= _needed([need], store) | {need.fingerprint: need}
    return needed


def _settled(record: Known | None, retry: Sequence[str]) -> bool:
    return record is not None and (
        record.status == "ok" or (record.status in FAILED_STATUSES and record.status not in retry)
    )
