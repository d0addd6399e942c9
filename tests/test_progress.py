"""What a run says of the time that it will still take."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kills import command, environment

from bench.cli import progress
from results import load_table


class Told:
    """A run of made-up units, its clock in our hands."""

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


def test_an_image_of_a_corpus_takes_longer_than_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, corpus_a=100, tune_a=1000, tune_b=1000)
    told.watch.started(told.units["corpus_a"])
    told.watch.started(told.units["tune_a"])
    told.after(0, corpus_a=1, tune_a=1)
    assert told.after(20, corpus_a=4, tune_a=200) is None, "too early to tell"
    assert told.after(180, corpus_a=40, tune_a=400) == pytest.approx((60 * 5 + 1600 * 0.5) / 2)
    told.watch.finished(told.units["tune_a"], "ok", None)
    left = 60 * 5 + 1000 * 0.2  # as if the rest of it had taken no time
    assert told.after(0) == pytest.approx(left / 2), "the next one starts at once: there are two workers"
    told.watch.started(told.units["tune_b"])
    told.after(0, tune_b=1)
    told.watch.finished(told.units["tune_b"], "ok", None)
    assert told.after(0) == pytest.approx(60 * 5), "one unit is left, and one worker can be at it"


def test_weights_that_load_in_seconds_are_no_pace_for_pretrainings(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, pretrain_a=1, pretrain_b=3000, tune_a=1000)
    told.watch.started(told.units["pretrain_a"])
    told.after(2)
    told.watch.finished(told.units["pretrain_a"], "ok", None)
    told.watch.started(told.units["tune_a"])
    told.after(0, tune_a=1)
    assert told.after(98, tune_a=500) == pytest.approx((500 * 98 / 500) + 3000 * 100 / 501)
    told.watch.started(told.units["tune_a"])
    assert told.watch._pieces["tune_a"].since == 2, "told of again, as of a unit that another call is at"


def test_what_a_killed_call_had_done_is_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, tune_a=1000)
    told.watch.started(told.units["tune_a"])
    told.after(0, tune_a=901)
    assert told.after(99, tune_a=950) == pytest.approx(50 * 99 / 50)


@pytest.mark.parametrize("end", ["head", "full disk"])
def test_a_run_goes_on_when_its_output_cannot_be_written(
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
    told = running.stderr.read()
    assert running.wait() == 0, told
    assert told.count("bench: standard output is gone") == 1
    assert len(told.splitlines()) == 1
    assert len(load_table(tmp_path / "store")) == 2


def test_a_run_that_nobody_reads_still_ends_by_its_results(matrix_file: Path, scenes: Path, tmp_path: Path) -> None:
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
