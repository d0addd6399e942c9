import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_matrix
from filelock import FileLock

from bench import DivergedError
from bench.plan.matrix import load_matrix
from bench.plan.outcome import Context, Outcome
from bench.plan.plan import Sweep, make_plan
from bench.plan.unit_folder import CLAIM
from bench.plan.units import Unit
from bench.run.executors import Frontier, inline, local
from bench.targets import open_pool, open_target
from bench.train import stages
from results.record_files import read_records
from results.store import Store


class Silent:
    """A Show that ignores all events."""

    def checking(self, what: str, done: int, total: int) -> None: ...
    def noted(self, text: str) -> None: ...
    def planned(self, plan: object, target: object) -> None: ...
    def started(self, unit: Unit) -> None: ...
    def progress(self, unit: Unit, done: int, total: int, /, **facts: float) -> None: ...
    def finished(self, unit: Unit, status: str, reason: str | None) -> None: ...


class Recorder(Silent):
    """Records the started units."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, unit: Unit) -> None:
        self.names.append(str(unit))


class Assassin(Silent):
    """Kills the worker of the first unit that reports progress, as the kernel does when out of memory."""

    victim: Unit | None = None

    def progress(self, unit: Unit, done: int, total: int, /, **facts: float) -> None:
        if self.victim is None:
            self.victim = unit
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)


@pytest.fixture
def todo(scenes: Path, tmp_path: Path) -> tuple[tuple[Unit, ...], Context]:
    matrix = load_matrix(str(write_matrix(tmp_path, ("none", "none/long"))))
    target = open_target("scenes", scenes)
    sweep = Sweep(matrix, Store(tmp_path / "store"), scenes, tmp_path)
    plan = make_plan(sweep, target, None)
    return plan.todo, Context(tmp_path / "store", target, tmp_path)


def test_cells_are_ordered_with_the_next_tuning_before_the_finals(scenes: Path, tmp_path: Path) -> None:
    """Skipped cells do not affect the order."""
    matrix = load_matrix(str(write_matrix(tmp_path, ("none", "imagenet", "none/long", "satir/felzenszwalb"))))
    target = open_target("scenes", scenes)
    pool = open_pool(target, None)
    plan = make_plan(Sweep(matrix, Store(tmp_path / "store"), scenes, tmp_path), target, pool)
    assert {unit.cell.source for unit, _ in plan.skipped} == {"imagenet"}
    short = {"none": "none", "none/long": "long", "satir/felzenszwalb": "satir"}
    assert [f"{u.kind} {short[u.cell.source]} {u.replicate}" for u in plan.todo if u.kind in ("tune", "final")] == [
        *("tune none None", "tune long None", "final none 0", "final none 1"),
        *("tune satir None", "final long 0", "final long 1", "final satir 0", "final satir 1"),
    ]
    assert [(u.kind, u.replicate) for u in plan.todo[4:7]] == [("corpus", None), ("pretrain", 0), ("pretrain", 1)]


def test_a_unit_starts_once_its_needs_have_ended(todo: tuple[tuple[Unit, ...], Context]) -> None:
    frontier = Frontier(todo[0])
    a, b = frontier.take(), frontier.take()
    assert a is not None
    assert b is not None
    assert {a.kind, b.kind} == {"tune"}
    assert frontier.take() is None
    assert frontier.end(a, Outcome("ok"))
    freed = frontier.take()
    assert freed is not None
    assert freed.needs == (a,)


def test_a_unit_locked_by_another_run_is_tried_again(
    todo: tuple[tuple[Unit, ...], Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    units, context = todo
    monkeypatch.setattr("bench.run.executors.LOOK_AGAIN_S", 0.2)
    claim = FileLock(context.store / "units" / units[0].kind / units[0].fingerprint / CLAIM)
    Path(claim.lock_file).parent.mkdir(parents=True)
    claim.acquire()
    show = Recorder()
    ended = []
    for unit, outcome in inline(units, context, show):
        ended.append((unit.kind, outcome.status))
        if claim.is_locked and len(ended) == 3:  # only the locked source is left
            claim.release()
    assert ended.count(("final", "ok")) == 4
    assert show.names.count(str(units[0])) >= 2


def test_units_done_by_another_run_meanwhile_are_not_repeated(
    todo: tuple[tuple[Unit, ...], Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    units, context = todo
    begun: list[str] = []
    for kind, real in dict(stages._STAGES).items():

        def counted(*words: object, real: Callable[..., None] = real) -> None:
            begun.append(str(words[0]))
            real(*words)

        monkeypatch.setitem(stages._STAGES, kind, counted)
    for _ in range(2):  # the second run made its plan before the first was done
        assert {outcome.status for _, outcome in inline(units, context, Silent())} == {"ok"}
    assert sorted(begun) == sorted(map(str, units))


def test_a_failed_unit_fails_only_the_units_that_need_it(
    todo: tuple[tuple[Unit, ...], Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    units, context = todo
    real = stages._STAGES["tune"]

    def tune(unit: Unit, context: Context, report: object) -> None:
        if unit == units[0]:
            raise DivergedError("why")
        real(unit, context, report)

    monkeypatch.setitem(stages._STAGES, "tune", tune)
    ended = {unit.fingerprint: (unit, outcome) for unit, outcome in inline(units, context, Silent())}
    gone = [(unit.kind, o.inherited) for unit, o in ended.values() if (o.status, o.reason) == ("diverged", "why")]
    assert sorted(gone) == [("final", True), ("final", True), ("tune", False)]
    assert sum(o.status == "ok" for _, o in ended.values()) == 3
    records, _ = read_records(Store(context.store))
    assert sorted(record.status for record in records) == ["diverged", "diverged", "ok", "ok"]


def test_a_killed_worker_fails_only_its_unit(todo: tuple[tuple[Unit, ...], Context]) -> None:
    units, context = todo
    show = Assassin()
    ended = {unit.fingerprint: outcome for unit, outcome in local(units, context, show, [None])}
    assert show.victim is not None
    assert set(ended) == {unit.fingerprint for unit in units}
    lost = [o for o in ended.values() if o.status == "failed"]
    assert len(lost) == 3  # a tuning and the two runs that need it
    assert "signal 9" in str(lost[0].reason)
    assert sum(o.status == "ok" for o in ended.values()) == 3
