"""Locks: non-blocking, signed, released when the holder dies; and file systems without locks."""

import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Bench
from filelock import FileLock

from bench.plan.outcome import held_by
from bench.plan.unit_folder import CLAIM
from results import locks
from results.locks import HeldError, LocksError, locked, try_locks
from safe_io.files import this_process

HOLDING = (
    "import pathlib, sys, time; from results.locks import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n print(1, flush=True); input()"
)


def hold(path: Path, code: str = HOLDING) -> "subprocess.Popen[str]":
    """Start a process that holds the lock of a file."""
    words = [sys.executable, "-c", code, str(path)]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline()
    return holder


def expect_held(path: Path) -> None:
    with locked(path):
        pytest.fail("the lock was acquired")


def test_held_lock_fails_at_once_and_names_the_holder(tmp_path: Path) -> None:
    holder = hold(tmp_path / "lock")
    with pytest.raises(HeldError, match=f"lock is locked by process {holder.pid} on ") as error:
        expect_held(tmp_path / "lock")
    assert not error.value.dead
    holder.kill()
    holder.wait()
    with locked(tmp_path / "lock"):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_unsigned_lock_is_held_by_another_process(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"), pytest.raises(HeldError, match="locked by another process"):
        expect_held(tmp_path / "lock")


def old_signature() -> str:
    """Signature of a dead process whose pid was reused."""
    host, pid, start = this_process().split(".")
    return f"here {pid} {host}.{pid}.{int(start) + 1}\n"


def test_unreleased_lock_of_a_dead_holder_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "DEAD_S", 1.0)
    (tmp_path / "lock").write_text(old_signature())
    with (
        FileLock(tmp_path / "lock"),
        pytest.raises(HeldError, match="which has ended: stop the processes") as error,
    ):
        expect_held(tmp_path / "lock")
    assert held_by(error.value).status == "failed"
    assert held_by(error.value).again


def test_old_signature_does_not_give_up(tmp_path: Path) -> None:
    """The next holder has acquired the lock, but not signed it yet."""
    (tmp_path / "lock").write_text(old_signature())
    code = "import sys, time; from filelock import FileLock\nFileLock(sys.argv[1]).acquire(); print(1, flush=True); time.sleep(2)"
    hold(tmp_path / "lock", code)
    with locked(tmp_path / "lock"):
        assert this_process() in (tmp_path / "lock").read_text()


@pytest.mark.parametrize(
    ("flock", "reason"),
    [
        (errno.ENOLCK, "No locks available"),
        (errno.ENOSYS, "Function not implemented"),
        (errno.EOPNOTSUPP, "Operation not supported"),
        (errno.EACCES, "a new lock cannot be acquired"),
        (None, "a lock can be acquired twice"),
    ],
)
def test_file_system_without_locks_fails_at_once(
    flock: int | None, reason: str, bench: Bench, matrix_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: int, how: int) -> None:
        if flock is not None and how != fcntl.LOCK_UN:
            raise OSError(flock, os.strerror(flock))

    monkeypatch.setattr(fcntl, "flock", broken)
    result = bench("run", "--matrix", matrix_file, "--executor", "inline")
    assert result.code == 1
    assert reason in result.err
    assert "--store DIR" in result.err
    assert len(result.err.splitlines()) == 1
    assert not list((tmp_path / "store").rglob(CLAIM)), "no unit was started"
    assert not list((tmp_path / "store").glob(".lock-test*"))


def test_hanging_lock_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.2)
    hang = multiprocessing.Event()
    monkeypatch.setattr(fcntl, "flock", lambda file, how: hang.wait(30))
    with pytest.raises(LocksError, match="no answer within"):
        try_locks(tmp_path)
    hang.set()


def test_working_locks_leave_no_files(tmp_path: Path) -> None:
    try_locks(tmp_path)
    assert not list(tmp_path.iterdir())


def test_waiting_run_names_the_holder(bench: Bench, matrix_file: Path, tmp_path: Path) -> None:
    assert bench("run", "--matrix", matrix_file, "--executor", "inline").code == 0
    [claim] = (tmp_path / "store").glob(f"units/tune/*/{CLAIM}")
    (claim.parent / "tune.json").unlink()
    for record in (tmp_path / "store").glob("scenes/**/record.json"):
        record.unlink()
    code = HOLDING.replace("input()", "time.sleep(4)")
    holder = hold(claim, code)
    result = bench("run", "--matrix", matrix_file, "--executor", "inline")
    holder.wait()
    assert result.code == 0, result.out
    assert result.out.count("waiting for tune none x tiny: ") == 1
    assert f"{claim} is locked by process {holder.pid} on " in result.out
