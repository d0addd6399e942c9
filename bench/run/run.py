"""Run a matrix: cells -> unfinished units -> an executor -> records."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench import BenchError, StoppedEarlyError
from bench.plan.events import Show
from bench.plan.outcome import Context
from bench.plan.plan import Plan, Sweep, make_plan
from bench.plan.prepare import look
from bench.plan.records import unfinished
from bench.plan.saved_plans import write_plan
from bench.plan.units import Unit
from bench.run import slurm
from bench.run.executors import inline, local
from bench.spec import Protocol
from bench.train import provenance
from pretrain_sources.processors import cores
from results.record import FAILED_STATUSES
from results.record_files import write_record
from results.store import StoreError

SAME_IN_A_ROW = 5  # equal failures in a row that stop a run


@dataclass(frozen=True)
class How:
    """How to run units.

    Attributes:
        executor: local, inline or slurm. jobs: workers on the CPU, None: one per core; or on each GPU, None: one. gpus: their
            numbers, None: all that are visible. slurm: options of sbatch. fail_fast: stop at the first failure.
    """

    executor: str = "local"
    jobs: int | None = None
    gpus: Sequence[int] | None = None
    slurm: Sequence[str] = ()
    fail_fast: bool = False


def run_matrix(sweep: Sweep, how: How, show: Show) -> Plan:
    """Run the unfinished units of a matrix and return the updated plan.

    Raises:
        BenchError: the data or a Slurm option cannot be used, or the protocol's device is missing.
        StoreError: the store cannot be written; finished work is kept.
        StoppedEarlyError: by fail_fast, or after repeated equal failures.
    """
    options = slurm.options_of(how.slurm)
    store = sweep.store
    store.make()
    target, pool, plan = look(sweep, show)
    show.planned(plan, target)
    places = places_of(sweep.matrix.protocol, how, show) if plan.todo and how.executor != "slurm" else []
    for unit, reason in plan.skipped:
        known = plan.records.get(unit.fingerprint)
        if known is None or (known.status, known.reason) != ("skipped", reason):
            write_record(store, unfinished(unit, target.spec, "skipped", reason))
    if plan.todo:
        write_plan(sweep.matrix, plan, target, store)
        context = Context(
            store.root.absolute(),
            target,
            sweep.weights.absolute(),
            pool,
            provenance.commit(),
            sweep.keep,
            sweep.matrix.code,
        )
        _run_units(plan.todo, context, how, show, options, places)
    again = replace(sweep, retry=(), keep=False)
    return make_plan(again, target, pool) if plan.todo or plan.skipped else plan


def _run_units(
    units: Sequence[Unit], context: Context, how: How, show: Show, options: slurm.Options, places: Sequence[int | None]
) -> None:
    if how.executor == "slurm":
        made, queued = slurm.submit(units, context, options)
        show.noted(f"{len(made)} jobs submitted, {queued} already queued; follow them with `bench status` and squeue")
        return
    outcomes = inline(units, context, show) if how.executor == "inline" else local(units, context, show, places)
    in_a_row, last = 0, ""
    for unit, outcome in outcomes:
        show.finished(unit, outcome.status, outcome.reason)
        if outcome.fatal:
            raise StoreError(outcome.reason)
        if outcome.status not in FAILED_STATUSES or outcome.inherited:
            in_a_row = 0 if outcome.status == "ok" else in_a_row
            continue
        if how.fail_fast:
            raise StoppedEarlyError(f"stopped at the first failure (--fail-fast): {unit}: {outcome.reason}")
        in_a_row, last = in_a_row + 1 if outcome.reason == last else 1, outcome.reason or ""
        if in_a_row == SAME_IN_A_ROW:
            raise StoppedEarlyError(
                f"stopped: {in_a_row} units in a row failed with the same error, the last is {unit}: {last}"
            )


def places_of(protocol: Protocol, how: How, show: Show) -> Sequence[int | None]:
    """Return the GPU of each worker, None: the CPU.

    Raises:
        BenchError: the protocol cannot be run here, or a GPU that was asked for is missing.
    """
    names: list[str] = []
    if protocol.device != "cpu":
        from bench.train import devices  # imports torch, which takes seconds

        names = devices.gpus()
    if not names and protocol.device != "cuda":
        if how.gpus is not None:
            why = "runs on a CPU" if protocol.device == "cpu" else "runs on a CPU here, as torch sees no CUDA GPU"
            raise BenchError(f"--gpus: protocol {protocol.name} {why}")
        return [None] * (how.jobs or max(1, cores() // protocol.threads))
    chosen = range(len(names)) if how.gpus is None else how.gpus
    if names and (missing := [number for number in chosen if number >= len(names)]):
        seen = ", ".join(f"{number} {name}" for number, name in enumerate(names))
        raise BenchError(f"--gpus {missing[0]}: no such GPU; torch sees {seen}")
    for number in chosen or [0]:
        devices.device_of(protocol, number)
    if how.executor == "inline":
        return []
    each = how.jobs or 1
    workers = "1 worker" if each == 1 else f"{each} workers"
    show.noted(f"{workers} on each of: {', '.join(f'GPU {number} {names[number]}' for number in chosen)}")
    return list(chosen) * each
