"""Locks on files: taken at once or not at all, signed by who holds them; and a test whether a file system has any."""

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

PATIENCE_S = 30.0  # for the answer of a file system
DEAD_S = 10.0  # in which a lock whose holder has died becomes free
ABSENT = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class HeldError(Exception):
    """Somebody else holds a lock; the message says who and where. dead: that process has ended, and the lock was not freed."""

    def __init__(self, path: Path, who: str, dead: bool = False) -> None:
        told = f"{path} is locked by {who}"
        mend = ", which is dead: end what it has started and left behind, or delete the file"
        super().__init__(told + mend if dead else told)
        self.dead = dead


class LocksError(Exception):
    """A file system has no locks that work; the message says why and what to do."""

    def __init__(self, folder: Path, why: str) -> None:
        self.why = why
        super().__init__(
            f"locks do not work in {folder} ({why}), so two runs would do the same work at once: "
            "name a folder on a disk that has them, a local one for example (--store DIR or BENCH_STORE)"
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file, or refuses at once; one whose holder has just died is waited for, some seconds.

    Raises:
        HeldError: somebody else holds it. LocksError: the file system has no locks. OSError: the file cannot be opened.
    """
    lock, until = _lock(path), time.monotonic() + DEAD_S
    while not _taken(lock, path):
        who, process = _holder(path)
        dead = process is not None and is_alive(process) is False
        if not dead or time.monotonic() > until:
            raise HeldError(path, who, dead)
        time.sleep(0.5)
    try:
        with suppress(OSError):  # a full disk: the lock holds without a signature
            path.write_text(f"{socket.gethostname()} {os.getpid()} {this_process()}\n")
        yield
    finally:
        lock.release()


def try_locks(folder: Path) -> None:
    """Takes a lock in a folder and sees that it is refused to the next one.

    Raises:
        LocksError: it cannot be taken, is given twice, or the file system does not answer.
    """
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(_fault(folder)), daemon=True)  # a lock may hang in the kernel
    asking.start()
    asking.join(PATIENCE_S)
    why = found[0] if found else f"no answer within {PATIENCE_S:.0f} s"
    if why:
        raise LocksError(folder, why)


def _fault(folder: Path) -> str | None:
    """What is wrong with the locks of a folder."""
    path = folder / f".lock-test.{this_process()}"
    first, second = _lock(path), _lock(path)
    try:
        if not _taken(first, path):
            return "a new lock is refused"
        if _taken(second, path):
            second.release()
            return "one lock was given twice"
        first.release()
        return None if _taken(first, path) else "a lock that was given back is refused"
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
    """(who holds a lock, in words; its process, where it has signed)."""
    try:
        host, pid, process = path.read_text().split()
        is_alive(process)
    except (OSError, ValueError):
        return "another process", None
    return f"process {pid} on {host}", process
