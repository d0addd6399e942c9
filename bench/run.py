"""A matrix, from its cells to a full store: cells -> units not yet done -> an executor -> records."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import BenchError, StoppedEarly, provenance, slurm
from bench.executors import Show, inline, local
from bench.matrix import Matrix
from bench.plan import Plan, make_plan
from bench.records import unfinished
from bench.spec import Protocol
from bench.status import keep_plan
from bench.targets import Target, open_pool, open_target
from bench.targets.mapping import map_target
from bench.units import Context, Unit
from pretrain_sources.identity import fingerprint
from pretrain_sources.pool import Pool
from results.record import FAILED_STATUSES
from results.record_files import write_record
from results.store import Store, StoreError

SAME_IN_A_ROW = 5  # failures alike, after which there is no point in going on


@dataclass(frozen=True)
class How:
    """Who runs the units. jobs: workers, None for one a core. slurm: options of sbatch. fail_fast: stop at the first failure.

    keep: the finetuned networks too.
    """

    executor: str = "local"  # or inline, slurm
    jobs: int | None = None
    slurm: Sequence[str] = ()
    fail_fast: bool = False
    keep: bool = False


def run_matrix(
    matrix: Matrix,
    store: Store,
    data: Path,
    weights: Path,
    how: How,
    show: Show,
    retry: Sequence[str] = (),
) -> Plan:
    """Runs what is not done and returns the plan as it stands afterwards.

    Raises:
        BenchError: the data or an option of Slurm cannot be used, or the protocol's device is not there.
        StoreError: the store cannot be written; what was finished is kept.
        StoppedEarly: by fail_fast, or because units keep failing alike.
    """
    options = slurm.options_of(how.slurm)
    store.make()
    target, pool, plan = look(matrix, store, data, weights, show, retry, how.keep)
    show.planned(plan, target)
    if plan.todo and how.executor != "slurm":
        _require_device(matrix.protocol)
    for unit, reason in plan.skipped:
        known = plan.records.get(unit.fingerprint)
        if known is None or (known.status, known.reason) != ("skipped", reason):
            write_record(store, unfinished(unit, "skipped", reason))
    if plan.todo:
        keep_plan(matrix, plan, store)
        context = Context(store.root.absolute(), target, weights.absolute(), pool, provenance.commit(), how.keep)
        _run_units(plan.todo, context, how, show, options)
    return make_plan(matrix, target, pool, store, weights) if plan.todo or plan.skipped else plan


def look(
    matrix: Matrix, store: Store, data: Path, weights: Path, show: Show, retry: Sequence[str] = (), keep: bool = False
) -> tuple[Target, Pool | None, Plan]:
    """The data of a matrix, and its plan. Writes nothing but caches of what was read.

    Raises:
        BenchError: the data cannot be used.
    """
    cache = store.cache_file(f"scan-{matrix.target}.json")
    checking = partial(show.checking, f"checking {matrix.target}")
    target = map_target(open_target(matrix.target, data, cache, checking), matrix.protocol.class_map)
    pool = _pool(matrix, target, store, show) if matrix.needs_pool else None
    return target, pool, make_plan(matrix, target, pool, store, weights, retry, keep)


def _pool(matrix: Matrix, target: Target, store: Store, show: Show) -> Pool | None:
    hashing = partial(show.checking, "hashing the pool")
    pool = open_pool(target, matrix.pool, store.cache_file(f"pool-{fingerprint(str(matrix.pool))[:12]}.json"), hashing)
    if pool is not None and pool.root.resolve() in (store.root / "x").resolve().parents:
        raise BenchError(
            f"the store {store.root} lies in the pool {pool.root}: what it holds would count as unlabelled images"
        )
    if pool is not None and pool.repeated:
        show.noted(f"{pool.repeated} images of the pool are byte-identical to another one and count once")
    for note in pool.notes if pool is not None else ():
        show.noted(f"the pool: {note}")
    return pool


def _run_units(units: Sequence[Unit], context: Context, how: How, show: Show, options: slurm.Options) -> None:
    protocol = units[0].protocol
    if how.executor == "slurm":
        made, queued = slurm.submit(units, context, options)
        show.noted(f"{len(made)} jobs submitted, {queued} in the queue already; `bench status` and squeue follow them")
        return
    if how.executor == "inline":
        outcomes = inline(units, context, show)
    else:
        outcomes = local(units, context, show, how.jobs or _default_jobs(protocol))
    in_a_row, last = 0, ""
    for unit, outcome in outcomes:
        show.finished(unit, outcome.status, outcome.reason)
        if outcome.fatal:
            raise StoreError(outcome.reason)
        if outcome.status not in FAILED_STATUSES or outcome.inherited:
            in_a_row = 0 if outcome.status == "ok" else in_a_row
            continue
        if how.fail_fast:
            raise StoppedEarly(f"stopped at the first failure (--fail-fast): {unit}: {outcome.reason}")
        in_a_row, last = in_a_row + 1 if outcome.reason == last else 1, outcome.reason or ""
        if in_a_row == SAME_IN_A_ROW:
            raise StoppedEarly(f"stopped: {in_a_row} units in a row failed alike, the last of them {unit}: {last}")


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
