"""Failed units affect no others, record the reason, and run again with --retry."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Bench, write_matrix

from bench.plan.outcome import Context
from bench.plan.units import TuneUnit
from bench.run import executors
from bench.train import stages
from results import load_table

CELLS = 6


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A matrix of six cells: one source with six train fractions; one trial and one run each."""
    path = write_matrix(tmp_path, trials=1, replicates=1)
    fields = yaml.safe_load(path.read_text()) | {"train_fracs": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}
    path.write_text(yaml.safe_dump(fields))
    return path


Break = Callable[[Callable[[TuneUnit], Exception | None]], list[TuneUnit]]


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Make tunings raise the error that a function returns; the returned list collects the started units."""
    real = stages._STAGES["tune"]

    def start(error_of: Callable[[TuneUnit], Exception | None]) -> list[TuneUnit]:
        begun: list[TuneUnit] = []

        def tune(unit: TuneUnit, context: Context, report: Callable[..., None]) -> None:
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


def test_five_equal_failures_in_a_row_stop_the_run(bench: Bench, sweep: Path, breaking: Break) -> None:
    begun = breaking(lambda unit: RuntimeError("the driver is gone"))
    code, output = run(bench, sweep)
    assert code == 3
    assert len(begun) == 5
    assert "5 units in a row failed with the same error" in output
    assert "the driver is gone" in output


def test_five_different_failures_do_not_stop_the_run(bench: Bench, sweep: Path, breaking: Break) -> None:
    numbers = count()
    begun = breaking(lambda unit: RuntimeError(f"number {next(numbers)}"))
    code, _ = run(bench, sweep)
    assert code == 2
    assert len(begun) == CELLS


def test_a_success_resets_the_count(bench: Bench, sweep: Path, breaking: Break) -> None:
    begun = breaking(lambda unit: None if unit.cell.train_frac == 0.7 else RuntimeError("no luck"))
    assert run(bench, sweep)[0] == 2
    assert len(begun) == CELLS


def test_fail_fast_stops_at_the_first_failure(bench: Bench, sweep: Path, breaking: Break) -> None:
    begun = breaking(lambda unit: RuntimeError("no luck"))
    code, output = run(bench, sweep, "--fail-fast")
    assert code == 3
    assert len(begun) == 1
    assert "stopped at the first failure (--fail-fast)" in output


def test_retry_runs_only_the_named_statuses(bench: Bench, sweep: Path, breaking: Break, tmp_path: Path) -> None:
    breaking(lambda unit: {0.5: RuntimeError("once"), 0.6: MemoryError("no room")}.get(unit.cell.train_frac))
    assert run(bench, sweep)[0] == 2
    begun = breaking(lambda unit: None)
    code, output = run(bench, sweep)
    assert (code, begun) == (2, []), output
    assert "nothing to do" in output
    code, output = run(bench, sweep, "--retry", "oom")
    assert [unit.cell.train_frac for unit in begun] == [0.6], output
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
    whole: Any = runs.loc[1.0]
    assert whole["status"] == "oom"
    assert f"out of memory at batch 2: {error}" in whole["reason"]
    assert runs["status"].value_counts()["ok"] == CELLS - 1


def test_an_out_of_memory_kill_is_distinguished_from_other_kills(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, tmp_path: Path
) -> None:
    kills, real = count(), executors._receive
    monkeypatch.setattr(executors, "_oom_kills", lambda: next(kills))  # increases with every call

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


def test_status_of_a_cell_shows_the_failure_and_changed_inputs(bench: Bench, breaking: Break, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, replicates=1, trials=1, finetune_steps=3)
    assert run(bench, path)[0] == 0
    assert "input changed" not in bench("status", "none").out
    breaking(lambda unit: RuntimeError("the driver is gone"))
    path = write_matrix(tmp_path, replicates=1, trials=1, finetune_steps=4)
    assert run(bench, path)[0] == 2
    result = bench("status", "none x tiny").out
    changed = [line for line in result.splitlines() if "this input changed since" in line]
    assert any("finetune_steps" in line and "3" in line and "4" in line for line in changed), result
    assert "the driver is gone" in result
    assert "error.txt ends:" in result
    assert "| RuntimeError: the driver is gone" in result
