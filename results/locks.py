"""Non-blocking file locks, signed by their holder, and a test whether a file system supports them."""

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from safe_io.files import is_alive, this_process

PATIENCE_S = 30.0  # for the file system to answer
DEAD_S = 10.0  # for the lock of a dead process to be released
ABSENT = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class HeldError(Exception):
    """The lock is held by another process. dead: that process has ended, but the lock was not released."""

    def __init__(self, path: Path, who: str, dead: bool = False) -> None:
        message = f"{path} is locked by {who}"
        fix = ", which has ended: stop the processes that it started, or delete the file"
        super().__init__(message + fix if dead else message)
        self.dead = dead


class LocksError(Exception):
    """File locks do not work on a file system; the message says why and what to do."""

    def __init__(self, folder: Path, why: str) -> None:
        self.why = why
        super().__init__(
            f"file locks do not work in {folder} ({why}), so two runs could repeat the same work: "
            "choose a store on a file system with locks, such as a local disk (--store DIR or BENCH_STORE)"
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, or fail at once. If the holder has just died, wait up to `DEAD_S` for its release.

    Raises:
        HeldError: another process holds the lock. LocksError: the file system has no locks. OSError: the file cannot be opened.
    """
    lock, until = _lock(path), time.monotonic() + DEAD_S
    while not _taken(lock, path):
        who, process = _holder(path)
        dead = process is not None and is_alive(process) is False
        if not dead or time.monotonic() > until:
            raise HeldError(path, who, dead)
        time.sleep(0.5)
    try:
        with suppress(OSError):  # disk full: the lock works without a signature
            path.write_text(f"{socket.gethostname()} {os.getpid()} {this_process()}\n")
        yield
    finally:
        lock.release()


def try_locks(folder: Path) -> None:
    """Check that file locks work in a folder.

    Raises:
        LocksError: a lock cannot be acquired, can be acquired twice, or the file system does not answer.
    """
    faults: list[str | None] = []
    check = threading.Thread(target=lambda: faults.append(_fault(folder)), daemon=True)  # a lock may hang in the kernel
    check.start()
    check.join(PATIENCE_S)
    why = faults[0] if faults else f"no answer within {PATIENCE_S:.0f} s"
    if why:
        raise LocksError(folder, why)


def _fault(folder: Path) -> str | None:
    """Return what is wrong with the locks of a folder, or None."""
    path = folder / f".lock-test.{this_process()}"
    first, second = _lock(path), _lock(path)
    try:
        if not _taken(first, path):
            return "a new lock cannot be acquired"
        if _taken(second, path):
            second.release()
            return "a lock can be acquired twice"
        first.release()
        return None if _taken(first, path) else "a released lock cannot be acquired again"
    except LocksError as error:
        return error.why
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with suppress(OSError):
            first.release()
        path.unlink(missing_ok=True)


def _lock(path: Path) -> FileLock:
    return FileLock(path, timeout=0, fallback_to_soft=False)  # a soft lock outlives its holder


def _taken(lock: FileLock, path: Path) -> bool:
    try:
        lock.acquire()
    except Timeout:
        return False
    except OSError as error:
        if error.errno in ABSENT:
            raise LocksError(path.parent, error.strerror or str(error)) from error
        raise
    return True


def _holder(path: Path) -> tuple[str, str | None]:
    """Return (description of the holder, its process id if it has signed the lock)."""
    try:
        host, pid, process = path.read_text().split()
        is_alive(process)
    except (OSError, ValueError):
        return "another process", None
    return f"process {pid} on {host}", process
