"""The remaining time that a run shows."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kills import command, environment

from bench.cli import progress
from results import load_table


class FakeRun:
    """A run of made-up units with a fake clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **work: int) -> None:
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)
        self.units: dict[str, Any] = {}
        for name, steps in work.items():
            self.units[name] = SimpleNamespace(fingerprint=name, kind=name.partition("_")[0], steps=steps)
        monkeypatch.setattr(progress, "work_of", lambda unit, target: unit.steps)
        matrix: Any = SimpleNamespace(name="m", protocol=SimpleNamespace(name="p"), cells=[])
        plan: Any = SimpleNamespace(todo=list(self.units.values()), finals=[], skipped=[])
        self.watch = progress.Watch(matrix, Path("store"))
        self.watch.planned(plan, SimpleNamespace(spec=SimpleNamespace(name="t"), notes=[]))  # type: ignore[arg-type]

    def after(self, seconds: float, **done: int) -> float | None:
        self.now += seconds
        for name, steps in done.items():
            self.watch.progress(self.units[name], steps, self.units[name].steps)
        return self.watch._seconds_left()


def test_each_kind_of_unit_has_its_own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(monkeypatch, corpus_a=100, tune_a=1000, tune_b=1000)
    run.watch.started(run.units["corpus_a"])
    run.watch.started(run.units["tune_a"])
    run.after(0, corpus_a=1, tune_a=1)
    assert run.after(20, corpus_a=4, tune_a=200) is None, "too early to tell"
    assert run.after(180, corpus_a=40, tune_a=400) == pytest.approx((60 * 5 + 1600 * 0.5) / 2)
    run.watch.finished(run.units["tune_a"], "ok", None)
    left = 60 * 5 + 1000 * 0.2  # as if the rest of it had taken no time
    assert run.after(0) == pytest.approx(left / 2), "the next one starts at once: there are two workers"
    run.watch.started(run.units["tune_b"])
    run.after(0, tune_b=1)
    run.watch.finished(run.units["tune_b"], "ok", None)
    assert run.after(0) == pytest.approx(60 * 5), "one unit is left, for one worker"


def test_loading_weights_does_not_count_for_the_pace_of_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(monkeypatch, pretrain_a=1, pretrain_b=3000, tune_a=1000)
    run.watch.started(run.units["pretrain_a"])
    run.after(2)
    run.watch.finished(run.units["pretrain_a"], "ok", None)
    run.watch.started(run.units["tune_a"])
    run.after(0, tune_a=1)
    assert run.after(98, tune_a=500) == pytest.approx((500 * 98 / 500) + 3000 * 100 / 501)
    run.watch.started(run.units["tune_a"])
    assert run.watch._pieces["tune_a"].since == 2, "started twice, as for a unit that another process runs"


def test_work_of_a_killed_call_does_not_count_for_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(monkeypatch, tune_a=1000)
    run.watch.started(run.units["tune_a"])
    run.after(0, tune_a=901)
    assert run.after(99, tune_a=950) == pytest.approx(50 * 99 / 50)


def test_what_is_counted_shows_the_time_left_from_the_second_report_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    with progress.counting("training again", "steps") as report:
        for clock.now, done in ((1.0, 1), (40.0, 2), (80.0, 601), (120.0, 641), (130.0, 651)):
            report(done, 1001)
    with progress.counting("resumed", "steps") as report:
        for clock.now, done in ((170.0, 601), (210.0, 641)):
            report(done, 1001)
    assert capsys.readouterr().out.splitlines() == [
        "training again, 0%; about 10 h 49 min",
        "training again, 60%; about 53 s",
        "training again, 64%; about 67 s",
        "resumed, 60%",
        "resumed, 64%; about 6 min",
    ]


@pytest.mark.parametrize("end", ["head", "full disk"])
def test_a_run_continues_when_its_output_cannot_be_written(
    end: str, matrix_file: Path, scenes: Path, tmp_path: Path
) -> None:
    words = command(matrix_file, tmp_path / "store", scenes, "--executor", "inline")
    with open("/dev/full" if end == "full disk" else os.devnull, "w") as full:
        out = full if end == "full disk" else subprocess.PIPE
        running = subprocess.Popen(words, env=environment(), stdout=out, stderr=subprocess.PIPE, text=True)
    if running.stdout is not None:
        assert running.stdout.readline()
        running.stdout.close()
    assert running.stderr is not None
    errors = running.stderr.read()
    assert running.wait() == 0, errors
    assert errors.count("bench: standard output is gone") == 1
    assert len(errors.splitlines()) == 1
    assert len(load_table(tmp_path / "store")) == 2


def test_the_exit_code_of_a_run_with_closed_output(matrix_file: Path, scenes: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    words = [*command(matrix_file, store, scenes, "--executor", "inline"), "--fail-fast"]
    code = (
        words[2]
        .replace("main()", "bench.train.stages._STAGES['tune'] = None; main()")
        .replace("from", "import bench.train.stages; from")
    )
    running = subprocess.Popen(
        [*words[:2], code, *words[3:]], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert running.stdout is not None
    running.stdout.close()
    assert running.wait() == 3
