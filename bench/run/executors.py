"""Executors run units. What is done lives in the store, so nothing here has to be remembered.

`local` gives each unit a process of its own, forked from a server that has imported torch once: a crash takes down one unit.
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

LOOK_AGAIN_S = 2.0  # at a unit that another run is at


class Frontier:
    """Which units can start: those whose needs have ended, however; what a unit needs it looks up in the store itself."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._waiting = list(units)
        self._open = {unit.fingerprint for unit in units}
        self._not_before: dict[str, float] = {}
        self._noted: set[tuple[str, str | None]] = set()

    def __bool__(self) -> bool:
        """Whether there are units that have not started, or have to be looked at again."""
        return bool(self._waiting)

    def take(self) -> Unit | None:
        """The first unit that can start now, or None."""
        for unit in self._waiting:
            ready = self._not_before.get(unit.fingerprint, 0) <= time.monotonic()
            if ready and not any(need.fingerprint in self._open for need in unit.needs):
                self._waiting.remove(unit)
                return unit
        return None

    def end(self, unit: Unit, outcome: Outcome) -> bool:
        """Whether a unit has ended; one that another run is at is looked at again after a while."""
        if outcome.status == "busy":
            self._not_before[unit.fingerprint] = time.monotonic() + LOOK_AGAIN_S
            self._waiting.append(unit)
            return False
        self._open.discard(unit.fingerprint)
        return True

    def note(self, unit: Unit, outcome: Outcome, show: Show) -> None:
        """Says once who keeps a unit waiting."""
        key = unit.fingerprint, outcome.reason
        if key not in self._noted:
            self._noted.add(key)
            show.noted(f"waiting for {unit}: {outcome.reason}")


def inline(units: Sequence[Unit], context: Context, show: Show) -> Iterator[tuple[Unit, Outcome]]:
    """(unit, outcome) of every unit, one after the other in this process."""
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
    oom_kills: int  # by the kernel, on this machine, before it started


def local(units: Sequence[Unit], context: Context, show: Show, jobs: int) -> Iterator[tuple[Unit, Outcome]]:
    """(unit, outcome) of every unit as they end, `jobs` at a time. Leaving early (Ctrl-C, an error) kills the workers."""
    frontier = Frontier(units)
    running: dict[Connection, _Worker] = {}
    builders = {f"backbones.{unit.backbone.builder}" for unit in units if not isinstance(unit, CorpusUnit)}
    _start_server(["bench.run.worker", "bench.train.stages", *sorted(builders)])
    try:
        while frontier or running:
            while len(running) < jobs and (unit := frontier.take()) is not None:
                connection, worker = _start(unit, context)
                running[connection] = worker
                show.started(unit)
            ready = set(wait(running, timeout=LOOK_AGAIN_S / 4 if frontier and len(running) < jobs else None))
            for connection in [c for c in running if c in ready]:
                worker = running[connection]
                outcome = _receive(connection, worker, show)
                if outcome is None:
                    continue
                running.pop(connection).process.join()
                if outcome.died:
                    from bench.run.worker import (
                        settle,  # with torch, which takes seconds that a run without a death saves
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
    """Starts the process that workers are forked from. Ctrl-C must not reach it, not even while it imports torch."""
    shorten_socket_paths()
    multiprocessing.set_forkserver_preload([parent.PRELOADED, *preload])
    os.environ[parent.SERVES] = str(os.getpid())
    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts, so it has to start first
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the server inherits it
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[parent.SERVES]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _start(unit: Unit, context: Context) -> tuple[Connection, _Worker]:
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("forkserver").Process(target=_work, args=(unit, context, theirs))
    process.start()
    theirs.close()  # so that a dead worker is the end of the file
    return mine, _Worker(unit, process, _oom_kills())


def _receive(connection: Connection, worker: _Worker, show: Show) -> Outcome | None:
    """The worker's outcome, or None where this was but a report of progress."""
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
    return Outcome(
        "failed", f"the worker died with exit code {code}; bench status shows what it printed last", died=True
    )


def _oom_kills() -> int:
    """How often the kernel has killed a process for want of memory since this machine started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _print_into(path: Path) -> None:
    """What this process prints goes to a file from now on, where one can be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(file, stream)


def _work(unit: Unit, context: Context, connection: Connection) -> None:
    """The life of a worker process."""
    from bench.run.worker import perform

    parent.end_with_parent(os.getppid())  # the fork server, which ends with the run
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    _print_into(Store(context.store).unit_dir(unit.kind, unit.fingerprint) / LOG)

    def report(done: int, total: int, /, **facts: float) -> None:
        try:
            connection.send((done, total, facts))
        except OSError:
            os._exit(1)  # nobody is left to work for

    connection.send(perform(unit, context, report))
