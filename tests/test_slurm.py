"""Slurm, the real one: slurmctld and slurmd on loopback."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from cluster import Cluster, cluster, obstacle
from conftest import Bench
from kills import command, environment, finished, matrix, table

from bench import BenchError
from bench.slurm import minutes, options_of
from bench.units import CLAIM
from results.store import Store


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm with a node of two cores."""
    if why := obstacle():
        pytest.skip(why)
    with cluster(tmp_path_factory.mktemp("slurm")) as made:
        yield made


def called(words: list[str]) -> str:
    """What a call printed; it must not fail."""
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_jobs_end_in_the_table_of_an_inline_run(slurm: Cluster, scenes: Path, tmp_path: Path) -> None:
    path, store = matrix(tmp_path, ("satir/felzenszwalb",)), tmp_path / "jobs"
    called(command(path, tmp_path / "inline", scenes, "--executor", "inline"))
    words = command(path, store, scenes, "--executor", "slurm", "--slurm", "partition=main,time=20")
    told = called(words)
    assert "6 jobs submitted, 0 in the queue already" in told
    assert "2 in the queue" in told, "two runs are left to do, and that is no failure"
    again = called(words)
    assert "0 jobs submitted, 6 in the queue already" in again
    slurm.wait_until_empty()
    pd.testing.assert_frame_equal(table(store), table(tmp_path / "inline"))
    before = finished(store)
    assert "nothing to do" in called(words)
    assert finished(store) == before
    assert not list(store.glob("units/*/*/checkpoint.pt"))


def test_a_cancelled_job_is_done_by_the_next_call(slurm: Cluster, scenes: Path, tmp_path: Path) -> None:
    path, store = matrix(tmp_path, ("none",)), tmp_path / "jobs"
    words = command(path, store, scenes, "--executor", "slurm")
    called(words)
    first = min(slurm.jobs(), key=lambda job: int(job.split("_")[0]))
    subprocess.run(["scancel", first], check=True)
    slurm.wait_until_empty()
    assert not Store(store).record_paths(), "the tuning was cancelled, so that no final could start"
    assert "3 jobs submitted" in called(words)
    slurm.wait_until_empty()
    assert len(table(store)) == 2


def test_what_slurm_refuses_is_told(slurm: Cluster, scenes: Path, tmp_path: Path) -> None:
    path = matrix(tmp_path, ("none",))
    words = command(path, tmp_path / "store", scenes, "--executor", "slurm", "--slurm", "partition=nowhere")
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Slurm refused the jobs" in done.stderr
    assert "invalid partition" in done.stderr
    assert "Traceback" not in done.stderr
    assert not slurm.jobs()


def test_without_slurm_the_executor_says_so(
    bench: Bench, matrix_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = bench("run", "--matrix", matrix_file, "--executor", "slurm")
    assert told.code == 1
    assert "no sbatch on this machine" in told.err
    assert not list(tmp_path.glob(f"store/units/*/*/{CLAIM}"))


def test_times_are_slurms() -> None:
    times = {"90": 90, "90:30": 91, "8:00:00": 480, "0:00:10": 1, "1-12": 2160, "2-1:30": 2970, "1-0:0:1": 1441}
    assert {text: minutes(text) for text in times} == times
    for wrong in ("8h", "", "1:2:3:4", "-1"):
        with pytest.raises(BenchError, match="time="):
            minutes(wrong)


def test_options_are_sbatchs() -> None:
    assert options_of("partition=gpu, time=8:00:00,gres=gpu:1") == {
        "partition": "gpu",
        "time": "8:00:00",
        "gres": "gpu:1",
    }
    assert options_of("") == {}
    for wrong in ("gpu", "partition=", "=x"):
        with pytest.raises(BenchError, match="KEY=VALUE"):
            options_of(wrong)
