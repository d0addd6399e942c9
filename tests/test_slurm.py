"""Jobs on a real Slurm: slurmctld and slurmd on loopback."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from cluster import Cluster, cluster, obstacle, run
from conftest import Bench, write_matrix
from examples import record_paths
from kills import environment, finished, matrix, table
from own_backbone import Code

from bench import BenchError
from bench.plan.unit_folder import CLAIM
from bench.run.slurm import _parameters, minutes, options_of
from results.store import Store


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm with a node of two cores."""
    if why := obstacle():
        pytest.skip(why)
    with cluster(tmp_path_factory.mktemp("slurm")) as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])  # inherited by jobs
        yield made


def called(bench: Bench, *words: object) -> str:
    """Return the output of a command that must succeed."""
    ended = bench(*words)
    assert ended.code == 0, ended.out + ended.err
    return ended.out


def test_jobs_give_the_table_of_an_inline_run(slurm: Cluster, bench: Bench, tmp_path: Path) -> None:
    path, store = matrix(tmp_path, ("satir/felzenszwalb",), replicates=1), tmp_path / "jobs"
    called(bench, "run", "--matrix", path, "--executor", "inline", "--store", tmp_path / "inline")
    words = ("run", "--matrix", path, "--store", store, "--executor", "slurm", "--slurm", "partition=main,time=20")
    first = called(bench, *words)
    assert "4 jobs submitted, 0 already queued" in first
    assert "1 in the queue" in first, "a queued run is not a failure"
    again = called(bench, *words)
    assert "0 jobs submitted, 4 already queued" in again
    slurm.wait_until_empty()
    pd.testing.assert_frame_equal(table(store), table(tmp_path / "inline"))
    before = finished(store)
    assert "nothing to do" in called(bench, *words)
    assert finished(store) == before
    assert not list(store.glob("units/*/*/checkpoint.pt"))


def test_jobs_find_a_users_own_backbone_beside_the_matrix(
    slurm: Cluster, code: Code, bench: Bench, tmp_path: Path
) -> None:
    code.write("own_net")
    path, store = write_matrix(tmp_path, backbones=("own_net:build",), replicates=1), tmp_path / "jobs"
    called(bench, "run", "--matrix", path, "--store", store, "--executor", "slurm")
    slurm.wait_until_empty()
    assert len(table(store)) == 1


def test_a_cancelled_job_is_submitted_again(slurm: Cluster, bench: Bench, tmp_path: Path) -> None:
    path, store = matrix(tmp_path, ("none",), replicates=1), tmp_path / "jobs"
    words = ("run", "--matrix", path, "--store", store, "--executor", "slurm")
    called(bench, *words)
    first = min(slurm.jobs(), key=lambda job: int(job.split("_")[0]))
    subprocess.run(["scancel", first], check=True)
    slurm.wait_until_empty()
    assert not record_paths(Store(store)), "the tuning was cancelled, so no final could start"
    assert "2 jobs submitted" in called(bench, *words)
    slurm.wait_until_empty()
    assert len(table(store)) == 1


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("partition=nowhere", "invalid partition"),
        ("mem=banana", "Invalid --mem"),
        ("foo=3", "unrecognized option '--foo=3'"),
        ("exclude=n1,n2", "Invalid node name"),
    ],
)
def test_options_that_slurm_refuses_are_reported(
    option: str, says: str, slurm: Cluster, bench: Bench, tmp_path: Path
) -> None:
    path = matrix(tmp_path, ("none",))
    ended = bench("run", "--matrix", path, "--executor", "slurm", "--slurm", option)
    assert ended.code == 1
    assert "Slurm refused the jobs" in ended.err
    assert says in ended.err
    assert "Nothing was queued" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not slurm.jobs()


def test_arrays_are_split_and_throttled(slurm: Cluster, bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, ("none",), trials=1, replicates=3)
    words = ("run", "--matrix", path, "--executor", "slurm", "--slurm", "time=20", "--slurm")
    assert "4 jobs submitted" in called(bench, *words, "throttle=1,comment='a, b=c'")
    waiting = [line.split("|") for line in run("squeue", "--noheader", "--format=%i|%k|%j").splitlines()]
    finals = sorted(job.partition("_")[2] for job, _, name in waiting if name == "bench-final")
    assert finals == ["", "[0-1%1]"], "3 are 2 and 1"
    assert {comment for _, comment, _ in waiting} == {"a, b=c"}
    assert len(slurm.jobs()) == 4
    slurm.wait_until_empty()
    assert len(table(tmp_path / "store")) == 3


def test_all_stages_are_queued_or_none(
    slurm: Cluster, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_matrix(tmp_path, ("satir/felzenszwalb",), trials=1, replicates=3)
    fake, real = tmp_path / "bin" / "sbatch", shutil.which("sbatch")
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\ncd {tmp_path}\necho >> calls\n[ $(wc -l < calls) -gt 3 ] && echo "sbatch: error: a limit" >&2 && exit 1\n'
        f'exec {real} --begin=now+1hour "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    ended = bench("run", "--matrix", path, "--executor", "slurm")
    assert ended.code == 1
    assert "Slurm refused the jobs: sbatch: error: a limit. Jobs" in ended.err
    assert "were cancelled; nothing is left in the queue" in ended.err
    assert len((tmp_path / "calls").read_text().splitlines()) == 4
    slurm.wait_until_empty(30)
    assert json.loads((tmp_path / "store/slurm/jobs.json").read_bytes()) == {}


def test_a_missing_slurm_is_reported(
    bench: Bench, matrix_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = bench("run", "--matrix", matrix_file, "--executor", "slurm")
    assert ended.code == 1
    assert "no sbatch on this machine" in ended.err
    assert not list(tmp_path.glob(f"store/units/*/*/{CLAIM}"))


def test_times_have_the_forms_of_slurm() -> None:
    times = {"90": 90, "90:30": 91, "8:00:00": 480, "0:00:10": 1, "1-12": 2160, "2-1:30": 2970, "1-0:0:1": 1441}
    assert {text: minutes(text) for text in times} == times
    for wrong in ("8h", "", "1:2:3:4", "-1"):
        with pytest.raises(BenchError, match="time="):
            minutes(wrong)


def test_options_have_the_form_of_sbatch() -> None:
    gpu = {"partition": "gpu", "time": "8:00:00", "gres": "gpu:1"}
    assert options_of(["partition=gpu, time=8:00:00,gres=gpu:1"]) == gpu
    assert options_of(["partition=gpu", "", "time=8:00:00,gres=gpu:1"]) == gpu
    assert options_of([]) == options_of([""]) == {}
    for wrong in ("gpu", "partition=", "=x", "gpu,partition=x"):
        with pytest.raises(BenchError, match="KEY=VALUE"):
            options_of([wrong])


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("exclude=n1,n2", {"exclude": "n1,n2"}),
        ("exclude=n[1-3],n9,mail-type=END,FAIL", {"exclude": "n[1-3],n9", "mail_type": "END,FAIL"}),
        ('comment="a, b=c",hold=true', {"comment": "a, b=c", "hold": "true"}),
        ("comment='it is \"x\"'", {"comment": 'it is "x"'}),
        (r"comment=a\,b=c", {"comment": "a,b=c"}),
        ("constraint=a&b|c#d", {"constraint": "a&b|c#d"}),
        ("export=ALL,'X=1'", {"export": "ALL", "X": "1"}),
        ("export='ALL,X=1'", {"export": "ALL,X=1"}),
        ("throttle=2", {"array_parallelism": "2"}),
    ],
)
def test_values_may_contain_commas_and_shell_quotes(text: str, options: dict[str, str]) -> None:
    assert options_of([text]) == options


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["exclude=n1", "exclude=n2"], "duplicate option"),
        (["throttle=2,array-parallelism=3"], "duplicate option"),
        (["comment='x"], "no closing quotation"),
        (["throttle=many"], "must be a number"),
        (["nodes=0"], "must be a number"),
        (["use-srun=perhaps"], "true or false"),
        (["array=0-9"], "bench sets this option"),
        (["time=soon"], "write 8:00:00"),
    ],
)
def test_invalid_options_are_reported_before_anything_is_read(
    texts: list[str], says: str, bench: Bench, matrix_file: Path, tmp_path: Path
) -> None:
    words = [word for text in texts for word in ("--slurm", text)]
    ended = bench("run", "--matrix", matrix_file, "--executor", "slurm", *words)
    assert ended.code == 1
    assert says in ended.err
    assert not (tmp_path / "store").exists()


def test_numbers_flags_and_text_are_passed_to_sbatch(tmp_path: Path) -> None:
    from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

    given = "mem=16G,nodes=1,hold=true,requeue=no,exclusive=user,throttle=7,setup='module load x, y',mem-per-cpu=2G"
    given += ",dependency=singleton,srun-args='--cpu-bind none',signal-delay-s=30,licenses=a:1,b:2,stderr-to-stdout=yes"
    parameters = _parameters(options_of([given]), after=["3", "4"])
    assert set(parameters) <= SlurmExecutor._valid_parameters()
    lines = _make_sbatch_string("COMMAND", tmp_path, map_count=9, **parameters).splitlines()
    for line in (
        *("--mem=16G", "--nodes=1", "--hold", "--exclusive=user", "--array=0-8%7", "--mem-per-cpu=2G"),
        *("--dependency=afterany:3:4,singleton", "--signal=USR2@30", "--licenses=a:1,b:2", "--time=1440"),
    ):
        assert f"#SBATCH {line}" in lines
    assert "module load x, y" in lines
    assert not [line for line in lines if "requeue" in line or "--error" in line]
    assert any(line.startswith("srun") and "--cpu-bind none" in line for line in lines)
