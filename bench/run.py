"""A matrix, from its cells to a full store: cells -> units not yet done -> an executor -> records."""

import os
from collections.abc import Sequence
from pathlib import Path

from bench import BenchError, provenance
from bench.executors import Show, inline, local
from bench.matrix import Matrix
from bench.plan import Plan, make_plan
from bench.records import unfinished
from bench.spec import Protocol
from bench.targets import Target, open_target
from bench.targets.mapping import map_target
from bench.units import Context, Unit
from results.store import Store, StoreError


def run_matrix(
    matrix: Matrix,
    store: Store,
    data: Path,
    weights: Path,
    jobs: int | None,
    show: Show,
    retry: Sequence[str] = (),
) -> Plan:
    """Runs what is not done and returns the plan as it stands afterwards.

    jobs: units at a time; 0 runs them in this process, None takes one a core.

    Raises:
        BenchError: the data cannot be used, or the protocol's device is not there.
        StoreError: the store cannot be written; what was finished is kept.
    """
    store.make()
    cache = store.cache_file(f"scan-{matrix.target}.json")
    target = map_target(open_target(matrix.target, data, cache, show.checking), matrix.protocol.class_map)
    plan = make_plan(matrix, target, store, weights, retry)
    show.planned(plan, target)
    if plan.todo:
        _require_device(matrix.protocol)
    for unit, reason in plan.skipped:
        known = plan.records.get(unit.fingerprint)
        if known is None or (known.status, known.reason) != ("skipped", reason):
            store.write_record(unfinished(unit, "skipped", reason))
    if plan.todo:
        _run_units(plan.todo, matrix, target, store, weights, jobs, show)
    return make_plan(matrix, target, store, weights)


def _run_units(
    units: Sequence[Unit], matrix: Matrix, target: Target, store: Store, weights: Path, jobs: int | None, show: Show
) -> None:
    context = Context(store.root.absolute(), target, weights.absolute(), provenance.commit())
    jobs = _default_jobs(matrix.protocol) if jobs is None else jobs
    outcomes = inline(units, context, show) if jobs == 0 else local(units, context, show, jobs)
    for unit, outcome in outcomes:
        show.finished(unit, outcome.status, outcome.reason)
        if outcome.fatal:
            raise StoreError(outcome.reason)
        if outcome.status != "ok" and unit.kind == "final":
            store.write_record(
                unfinished(unit, outcome.status, outcome.reason or "no reason given"), extra=dict(outcome.files)
            )


def _require_device(protocol: Protocol) -> None:
    if protocol.device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        raise BenchError(
            f"protocol {protocol.name} is for a CUDA GPU and this machine has none; --smoke tries it out on a CPU"
        )


def _default_jobs(protocol: Protocol) -> int:
    """One unit for each core that this process may use; one where a GPU may be in play."""
    return 1 if protocol.device != "cpu" else max(1, _cores() // protocol.threads)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
