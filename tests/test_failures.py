"""What fails takes down itself, says why, and is run again when that is asked for."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Bench, write_matrix

from bench.plan.outcome import Context
from bench.plan.units import Unit
from bench.run import executors
from bench.train import stages
from results import load_table

CELLS = 6


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A matrix of six cells of one source, each with its own share of the labels; one trial, one run each."""
    path = write_matrix(tmp_path, trials=1, replicates=1)
    fields = yaml.safe_load(path.read_text()) | {"train_fracs": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}
    path.write_text(yaml.safe_dump(fields))
    return path


Break = Callable[[Callable[[Unit], Exception | None]], list[Unit]]


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Makes tunings raise what a function says of them; the list is what was begun."""
    real = stages._STAGES["tune"]

    def start(error_of: Callable[[Unit], Exception | None]) -> list[Unit]:
        begun: list[Unit] = []

        def tune(unit: Unit, context: Context, report: Callable[..., None]) -> None:
            begun.append(unit)
            if (error := error_of(unit)) is not None:
                raise error
            real(unit, context, report)

        monkeypatch.setitem(stages._STAGES, "tune", tune)
        return begun

    return start


def run(bench: Bench, path: Path, *words: str) -> tuple[int, str]:
    ended = bench("run", "--matrix", path, "--executor", "inline", *words)
    return ended.code, ended.out + ended.err


def test_five_alike_in_a_row_stop_the_sweep(bench: Bench, sweep: Path, breaking: Break) -> None:
    begun = breaking(lambda unit: RuntimeError("the driver is gone"))
    code, told = run(bench, sweep)
    assert code == 3
    assert len(begun) == 5
    assert "5 units in a row failed alike" in told
    assert "the driver is gone" in told


def test_five_that_differ_do_not(bench: Bench, sweep: Path, breaking: Break) -> None:
    numbers = count()
    begun = breaking(lambda unit: RuntimeError(f"number {next(numbers)}"))
    code, _ = run(bench, sweep)
    assert code == 2
    assert len(begun) == CELLS


def test_one_that_succeeds_begins_the_count_anew(bench: Bench, sweep: Path, breaking: Break) -> None:
    begun = breaking(lambda unit: None if unit.cell.train_frac == 0.7 else RuntimeError("no luck"))
    assert run(bench, sweep)[0] == 2
    assert len(begun) == CELLS


def test_fail_fast_stops_at_the_first(bench: Bench, sweep: Path, breaking: Break) -> None:
    begun = breaking(lambda unit: RuntimeError("no luck"))
    code, told = run(bench, sweep, "--fail-fast")
    assert code == 3
    assert len(begun) == 1
    assert "stopped at the first failure (--fail-fast)" in told


def test_retry_runs_what_it_names_and_nothing_else(bench: Bench, sweep: Path, breaking: Break, tmp_path: Path) -> None:
    breaking(lambda unit: {0.5: RuntimeError("once"), 0.6: MemoryError("no room")}.get(unit.cell.train_frac))
    assert run(bench, sweep)[0] == 2
    begun = breaking(lambda unit: None)
    code, told = run(bench, sweep)
    assert (code, begun) == (2, []), told
    assert "nothing to do" in told
    code, told = run(bench, sweep, "--retry", "oom")
    assert [unit.cell.train_frac for unit in begun] == [0.6], told
    assert run(bench, sweep, "--retry", "failed")[0] == 0
    assert [unit.cell.train_frac for unit in begun] == [0.6, 0.5]
    assert set(load_table(tmp_path / "store")["status"]) == {"ok"}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("none left")])
def test_out_of_memory_is_recorded_with_the_batch(
    bench: Bench, sweep: Path, breaking: Break, tmp_path: Path, error: Exception
) -> None:
    breaking(lambda unit: error if unit.cell.train_frac == 1 else None)
    assert run(bench, sweep)[0] == 2
    runs = load_table(tmp_path / "store").set_index("train_frac")
    assert runs.loc[1.0, "status"] == "oom"
    assert f"out of memory at batch 2: {error}" in runs.loc[1.0, "reason"]
    assert runs["status"].value_counts()["ok"] == CELLS - 1


def test_a_worker_that_the_kernel_killed_for_memory_is_told_from_one_that_was_killed(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, tmp_path: Path
) -> None:
    kills, real = count(), executors._receive
    monkeypatch.setattr(executors, "_oom_kills", lambda: next(kills))  # the kernel counts one more each time

    def receive(connection: object, worker: executors._Worker, show: object) -> object:
        if worker.unit.kind == "tune":
            worker.process.kill()
            worker.process.join()
            return executors._death(worker)
        return real(connection, worker, show)  # type: ignore[arg-type]

    monkeypatch.setattr(executors, "_receive", receive)
    assert bench("run", "--matrix", write_matrix(tmp_path, trials=1, replicates=1), "--jobs", "1").code == 2
    [run] = load_table(tmp_path / "store").to_dict("records")
    assert run["status"] == "oom"
    assert "out of memory at batch 2: the kernel killed the worker" in run["reason"]


def test_status_of_a_cell_says_what_failed_and_which_inputs_have_changed(
    bench: Bench, breaking: Break, tmp_path: Path
) -> None:
    path = write_matrix(tmp_path, replicates=1, trials=1, finetune_steps=3)
    assert run(bench, path)[0] == 0
    assert "input changed" not in bench("status", "none").out
    breaking(lambda unit: RuntimeError("the driver is gone"))
    path = write_matrix(tmp_path, replicates=1, trials=1, finetune_steps=4)
    assert run(bench, path)[0] == 2
    told = bench("status", "none x tiny").out
    changed = [line for line in told.splitlines() if "this input changed since" in line]
    assert any("finetune_steps" in line and "3" in line and "4" in line for line in changed), told
    assert "the driver is gone" in told
    assert "error.txt ends:" in told
    assert "| RuntimeError: the driver is gone" in told
