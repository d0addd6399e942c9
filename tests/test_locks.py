"""Locks: refused at once, signed, free again when the holder dies; and a file system without them is told at once."""

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
    """A process that holds the lock of a file."""
    words = [sys.executable, "-c", code, str(path)]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline()
    return holder


def refuse(path: Path) -> None:
    with locked(path):
        pytest.fail("it was taken")


def test_a_lock_is_refused_at_once_and_says_who_holds_it(tmp_path: Path) -> None:
    holder = hold(tmp_path / "lock")
    with pytest.raises(HeldError, match=f"lock is locked by process {holder.pid} on ") as told:
        refuse(tmp_path / "lock")
    assert not told.value.dead
    holder.kill()
    holder.wait()
    with locked(tmp_path / "lock"):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_a_lock_that_nobody_has_signed_is_held_by_another_process(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"), pytest.raises(HeldError, match="locked by another process"):
        refuse(tmp_path / "lock")


def old_signature() -> str:
    """Of a process that is dead: its pid is another one's now."""
    host, pid, start = this_process().split(".")
    return f"here {pid} {host}.{pid}.{int(start) + 1}\n"


def test_a_lock_that_is_not_freed_when_its_holder_dies_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "DEAD_S", 1.0)
    (tmp_path / "lock").write_text(old_signature())
    with FileLock(tmp_path / "lock"), pytest.raises(HeldError, match="which is dead: end what it has started") as told:
        refuse(tmp_path / "lock")
    assert held_by(told.value).status == "failed"
    assert held_by(told.value).again


def test_a_signature_that_is_old_is_no_reason_to_give_up(tmp_path: Path) -> None:
    """The next holder has the lock and has not signed yet."""
    (tmp_path / "lock").write_text(old_signature())
    code = "import sys, time; from filelock import FileLock\nFileLock(sys.argv[1]).acquire(); print(1, flush=True); time.sleep(2)"
    hold(tmp_path / "lock", code)
    with locked(tmp_path / "lock"):
        assert this_process() in (tmp_path / "lock").read_text()


@pytest.mark.parametrize(
    ("flock", "says"),
    [
        (errno.ENOLCK, "No locks available"),
        (errno.ENOSYS, "Function not implemented"),
        (errno.EOPNOTSUPP, "Operation not supported"),
        (errno.EACCES, "a new lock is refused"),
        (None, "one lock was given twice"),
    ],
)
def test_a_file_system_without_locks_is_told_at_once(
    flock: int | None, says: str, bench: Bench, matrix_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: int, how: int) -> None:
        if flock is not None and how != fcntl.LOCK_UN:
            raise OSError(flock, os.strerror(flock))

    monkeypatch.setattr(fcntl, "flock", broken)
    told = bench("run", "--matrix", matrix_file, "--executor", "inline")
    assert told.code == 1
    assert says in told.err
    assert "--store DIR" in told.err
    assert len(told.err.splitlines()) == 1
    assert not list((tmp_path / "store").rglob(CLAIM)), "nothing was begun"
    assert not list((tmp_path / "store").glob(".lock-test*"))


def test_a_lock_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.2)
    hang = multiprocessing.Event()
    monkeypatch.setattr(fcntl, "flock", lambda file, how: hang.wait(30))
    with pytest.raises(LocksError, match="no answer within"):
        try_locks(tmp_path)
    hang.set()


def test_locks_that_work_leave_nothing(tmp_path: Path) -> None:
    try_locks(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_that_waits_says_for_whom(bench: Bench, matrix_file: Path, tmp_path: Path) -> None:
    assert bench("run", "--matrix", matrix_file, "--executor", "inline").code == 0
    [claim] = (tmp_path / "store").glob(f"units/tune/*/{CLAIM}")
    (claim.parent / "tune.json").unlink()
    for record in (tmp_path / "store").glob("scenes/**/record.json"):
        record.unlink()
    code = HOLDING.replace("input()", "time.sleep(4)")
    holder = hold(claim, code)
    told = bench("run", "--matrix", matrix_file, "--executor", "inline")
    holder.wait()
    assert told.code == 0, told.out
    assert told.out.count("waiting for tune none x tiny: ") == 1
    assert f"{claim} is locked by process {holder.pid} on " in told.out
