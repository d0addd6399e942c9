"""Executors run units. What is done lives in the store, so nothing here has to be remembered.

`local` gives each unit a process of its own, forked from a server that has imported torch once: a crash takes down one unit.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Protocol

from bench.plan import Plan
from bench.targets import Target
from bench.units import Context, Outcome, Unit


class Show(Protocol):
    """What a run tells whoever watches."""

    def checking(self, what: str, done: int, total: int) -> None:
        """So many of the files were read for the first time."""

    def noted(self, text: str) -> None:
        """Something that whoever watches should know."""

    def planned(self, plan: Plan, target: Target) -> None:
        """This is what there is to do, before it starts."""

    def started(self, unit: Unit) -> None:
        """A unit starts."""

    def progress(self, unit: Unit, done: int, total: int) -> None:
        """A unit has got so far, in about training steps."""

    def finished(self, unit: Unit, status: str, reason: str | None) -> None:
        """A unit ended."""


class Frontier:
    """Which units can start. A failed unit takes those that need it with it."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._waiting = list(units)
        self._open = {unit.fingerprint for unit in units}

    def take(self) -> Unit | None:
        """The first waiting unit whose needs are all met, or None."""
        for unit in self._waiting:
            if not any(need.fingerprint in self._open for need in unit.needs):
                self._waiting.remove(unit)
                return unit
        return None

    def finish(self, unit: Unit, outcome: Outcome) -> Iterator[tuple[Unit, Outcome]]:
        """(unit, outcome) for a unit that ended, and where it failed also for every waiting unit that needs it."""
        self._open.discard(unit.fingerprint)
        yield unit, outcome
        if outcome.status != "ok":
            for dependent in [u for u in self._waiting if unit.fingerprint in {n.fingerprint for n in u.needs}]:
                if dependent in self._waiting:
                    self._waiting.remove(dependent)
                    yield from self.finish(dependent, outcome)


def inline(units: Sequence[Unit], context: Context, show: Show) -> Iterator[tuple[Unit, Outcome]]:
    """(unit, outcome) of every unit, one after the other in this process."""
    from bench.stages import execute

    frontier = Frontier(units)
    while (unit := frontier.take()) is not None:
        current = unit
        show.started(current)
        outcome = execute(current, context, lambda done, total, current=current: show.progress(current, done, total))  # type: ignore[misc]
        yield from frontier.finish(current, outcome)


@dataclass(frozen=True)
class _Worker:
    unit: Unit
    process: ForkServerProcess


def local(units: Sequence[Unit], context: Context, show: Show, jobs: int) -> Iterator[tuple[Unit, Outcome]]:
    """(unit, outcome) of every unit as they end, `jobs` at a time. Leaving early (Ctrl-C, an error) kills the workers."""
    frontier = Frontier(units)
    running: dict[Connection, _Worker] = {}
    _start_server(["bench.stages", *sorted({f"backbones.{unit.backbone.builder}" for unit in units})])
    try:
        while True:
            while len(running) < jobs and (unit := frontier.take()) is not None:
                connection, worker = _start(unit, context)
                running[connection] = worker
                show.started(unit)
            if not running:
                return
            ready = set(wait(running))
            for connection in [c for c in running if c in ready]:
                unit = running[connection].unit
                outcome = _receive(connection, running[connection], show)
                if outcome is not None:
                    running.pop(connection).process.join()
                    yield from frontier.finish(unit, outcome)
    finally:
        for worker in running.values():
            worker.process.kill()
            worker.process.join()


def _start_server(preload: list[str]) -> None:
    """Starts the process that workers are forked from. Ctrl-C must not reach it, not even while it imports torch."""
    multiprocessing.set_forkserver_preload(preload)
    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts, so it has to start first
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the server inherits it
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _start(unit: Unit, context: Context) -> tuple[Connection, _Worker]:
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("forkserver").Process(target=_work, args=(unit, context, theirs))
    process.start()
    theirs.close()  # so that a dead worker is the end of the file
    return mine, _Worker(unit, process)


def _receive(connection: Connection, worker: _Worker, show: Show) -> Outcome | None:
    """The worker's outcome, or None where this was but a report of progress."""
    try:
        message = connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        return Outcome("failed", _death(worker.process.exitcode))
    if isinstance(message, tuple):
        show.progress(worker.unit, *message)
        return None
    outcome: Outcome = message
    return outcome


def _death(exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        return "the worker was killed (signal 9): often the system's last resort when memory runs out"
    return f"the worker died with exit code {exitcode}"


def _work(unit: Unit, context: Context, connection: Connection) -> None:
    """The life of a worker process."""
    from bench.stages import execute

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers

    def report(done: int, total: int) -> None:
        try:
            connection.send((done, total))
        except OSError:
            os._exit(1)  # nobody is left to work for

    connection.send(execute(unit, context, report))
