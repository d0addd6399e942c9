import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from conftest import write_matrix

from bench.executors import Frontier, local
from bench.matrix import load_matrix
from bench.plan import make_plan
from bench.stages import Context
from bench.targets import open_target
from bench.units import Outcome, Unit
from results.store import Store


class Silent:
    """A Show that says nothing."""

    def checking(self, what: str, done: int, total: int) -> None: ...
    def noted(self, text: str) -> None: ...
    def planned(self, plan: object, target: object) -> None: ...
    def started(self, unit: Unit) -> None: ...
    def progress(self, unit: Unit, done: int, total: int) -> None: ...
    def finished(self, unit: Unit, status: str, reason: str | None) -> None: ...


class Assassin(Silent):
    """Kills the worker of the first unit that reports progress, as the kernel does when memory runs out."""

    victim: Unit | None = None

    def progress(self, unit: Unit, done: int, total: int) -> None:
        if self.victim is None:
            self.victim = unit
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)


@pytest.fixture
def todo(scenes: Path, tmp_path: Path) -> tuple[tuple[Unit, ...], Context]:
    matrix = load_matrix(str(write_matrix(tmp_path, ("none", "none/long"))))
    target = open_target("scenes", scenes)
    plan = make_plan(matrix, target, None, Store(tmp_path / "store"), tmp_path)
    return plan.todo, Context(tmp_path / "store", target, tmp_path)


def test_a_unit_starts_when_what_it_needs_is_done(todo: tuple[tuple[Unit, ...], Context]) -> None:
    frontier = Frontier(todo[0])
    a, b = frontier.take(), frontier.take()
    assert a is not None
    assert b is not None
    assert {a.kind, b.kind} == {"tune"}
    assert frontier.take() is None
    assert list(frontier.finish(a, Outcome("ok"))) == [(a, Outcome("ok"))]
    freed = frontier.take()
    assert freed is not None
    assert freed.needs == (a,)


def test_a_failed_unit_takes_those_that_need_it_with_it_and_no_others(todo: tuple[tuple[Unit, ...], Context]) -> None:
    frontier = Frontier(todo[0])
    a, b = frontier.take(), frontier.take()
    assert a is not None
    assert b is not None
    gone = list(frontier.finish(a, Outcome("diverged", "why")))
    assert [unit.kind for unit, _ in gone] == ["tune", "final", "final"]
    assert {outcome for _, outcome in gone} == {Outcome("diverged", "why")}
    list(frontier.finish(b, Outcome("ok")))
    assert frontier.take() is not None


def test_a_killed_worker_takes_down_its_unit_and_no_more(todo: tuple[tuple[Unit, ...], Context]) -> None:
    units, context = todo
    show = Assassin()
    ended = {unit.fingerprint: outcome for unit, outcome in local(units, context, show, jobs=1)}
    assert show.victim is not None
    assert set(ended) == {unit.fingerprint for unit in units}
    lost = [o for o in ended.values() if o.status == "failed"]
    assert len(lost) == 3  # a study and the two runs that needed it
    assert "signal 9" in str(lost[0].reason)
    assert sum(o.status == "ok" for o in ended.values()) == 3
