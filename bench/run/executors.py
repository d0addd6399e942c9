"""Executors run units. They keep no state: the store records what is done.

`local` runs each unit in its own process, forked from a server that has imported torch once: a crash affects one unit only.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from bench.plan.events import Show
from bench.plan.outcome import Context, Outcome
from bench.plan.unit_folder import LOG
from bench.plan.units import CorpusUnit, Unit
from bench.run import parent
from pretrain_sources.sockets import shorten_socket_paths
from results.store import Store

LOOK_AGAIN_S = 2.0  # between two attempts at a unit that another run has locked


class Frontier:
    """The queue of units. A unit is ready once its needs have ended, successfully or not; it checks the store itself."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._waiting = list(units)
        self._open = {unit.fingerprint for unit in units}
        self._not_before: dict[str, float] = {}
        self._noted: set[tuple[str, str | None]] = set()

    def __bool__(self) -> bool:
        """Return whether units remain that have not started or have to be tried again."""
        return bool(self._waiting)

    def take(self) -> Unit | None:
        """Remove and return the first unit that can start now, or None."""
        for unit in self._waiting:
            ready = self._not_before.get(unit.fingerprint, 0) <= time.monotonic()
            if ready and not any(need.fingerprint in self._open for need in unit.needs):
                self._waiting.remove(unit)
                return unit
        return None

    def end(self, unit: Unit, outcome: Outcome) -> bool:
        """Record an outcome; return whether the unit has ended. Units locked by another run are queued again."""
        if outcome.status == "busy":
            self._not_before[unit.fingerprint] = time.monotonic() + LOOK_AGAIN_S
            self._waiting.append(unit)
            return False
        self._open.discard(unit.fingerprint)
        return True

    def note(self, unit: Unit, outcome: Outcome, show: Show) -> None:
        """Report once which process a unit waits for."""
        key = unit.fingerprint, outcome.reason
        if key not in self._noted:
            self._noted.add(key)
            show.noted(f"waiting for {unit}: {outcome.reason}")


def inline(units: Sequence[Unit], context: Context, show: Show) -> Iterator[tuple[Unit, Outcome]]:
    """Run units one after the other in this process; yield (unit, outcome)."""
    from bench.run.worker import perform

    frontier = Frontier(units)
    while frontier:
        unit = frontier.take()
        if unit is None:
            time.sleep(LOOK_AGAIN_S / 4)
            continue
        show.started(unit)
        outcome = perform(unit, context, partial(show.progress, unit))
        if frontier.end(unit, outcome):
            yield unit, outcome
        else:
            frontier.note(unit, outcome, show)


@dataclass(frozen=True)
class _Worker:
    unit: Unit
    process: ForkServerProcess
    place: int | None
    oom_kills: int  # on this machine, before the worker started


def local(
    units: Sequence[Unit], context: Context, show: Show, places: Sequence[int | None]
) -> Iterator[tuple[Unit, Outcome]]:
    """Run units in workers, one at each place; yield (unit, outcome) as they end. Leaving early (Ctrl-C, error) kills workers.

    places: the GPU of each worker by its number, None: the CPU.
    """
    free = list(places)
    frontier = Frontier(units)
    running: dict[Connection, _Worker] = {}
    builders = {f"backbones.{unit.backbone.builder}" for unit in units if not isinstance(unit, CorpusUnit)}
    _start_server(["bench.run.worker", "bench.train.stages", *sorted(builders)])
    try:
        while frontier or running:
            while free and (unit := frontier.take()) is not None:
                connection, worker = _start(unit, context, free.pop(0), len(places))
                running[connection] = worker
                show.started(unit)
            ready = set(wait(running, timeout=LOOK_AGAIN_S / 4 if frontier and free else None))
            for connection in [c for c in running if c in ready]:
                worker = running[connection]
                outcome = _receive(connection, worker, show)
                if outcome is None:
                    continue
                running.pop(connection).process.join()
                free.append(worker.place)
                if outcome.died:
                    from bench.run.worker import (
                        settle,  # imports torch, which takes seconds; needed only after a death
                    )

                    outcome = settle(worker.unit, context, outcome)
                if frontier.end(worker.unit, outcome):
                    yield worker.unit, outcome
                else:
                    frontier.note(worker.unit, outcome, show)
    finally:
        for worker in running.values():
            worker.process.kill()
            worker.process.join()


def _start_server(preload: list[str]) -> None:
    """Start the fork server. Ctrl-C must not reach it, not even while it imports torch."""
    shorten_socket_paths()
    multiprocessing.set_forkserver_preload([parent.PRELOADED, *preload])
    os.environ[parent.SERVES] = str(os.getpid())
    os.environ.setdefault(
        "PYTORCH_NVML_BASED_CUDA_CHECK", "1"
    )  # so that looking for GPUs does not start CUDA in the server
    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts, so it has to start first
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the server inherits it
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[parent.SERVES]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _start(unit: Unit, context: Context, place: int | None, workers: int) -> tuple[Connection, _Worker]:
    mine, theirs = multiprocessing.Pipe()
    task = unit, context, theirs, place, workers
    process = multiprocessing.get_context("forkserver").Process(target=_work, args=task)
    process.start()
    theirs.close()  # so that the death of the worker gives an end of file
    return mine, _Worker(unit, process, place, _oom_kills())


def _receive(connection: Connection, worker: _Worker, show: Show) -> Outcome | None:
    """Receive a worker's outcome, or None if the message reports progress."""
    try:
        message = connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        return _death(worker)
    if isinstance(message, tuple):
        done, total, facts = message
        show.progress(worker.unit, done, total, **facts)
        return None
    outcome: Outcome = message
    return outcome


def _death(worker: _Worker) -> Outcome:
    code, batch = worker.process.exitcode, worker.unit.protocol.batch
    if code == -signal.SIGKILL and _oom_kills() > worker.oom_kills:
        return Outcome("oom", f"out of memory at batch {batch}: the kernel killed the worker", died=True)
    if code == -signal.SIGKILL:
        return Outcome("failed", "the worker was killed (signal 9)", died=True)
    return Outcome("failed", f"the worker died with exit code {code}; `bench status` shows its last output", died=True)


def _oom_kills() -> int:
    """Return the kernel's count of out-of-memory kills since boot; 0 if unavailable."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _print_into(path: Path) -> None:
    """Redirect stdout and stderr to a file, if it can be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(file, stream)


def _work(unit: Unit, context: Context, connection: Connection, place: int | None, workers: int) -> None:
    """Run one unit in a worker process, one of so many."""
    from bench.run.worker import perform
    from bench.train import devices

    if place is not None:
        devices.take_gpu(place, workers)

    parent.end_with_parent(os.getppid())  # the parent is the fork server, which ends with the run
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    _print_into(Store(context.store).unit_dir(unit.kind, unit.fingerprint) / LOG)

    def report(done: int, total: int, /, **facts: float) -> None:
        try:
            connection.send((done, total, facts))
        except OSError:
            os._exit(1)  # the parent is gone

    connection.send(perform(unit, context, report))
