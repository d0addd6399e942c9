"""Files that are written whole or not at all (aside, flushed, renamed), and read only where they are files and not too large.

Every package may import this; it imports none of them.

    .NAME.HOST.PID.START.NUMBER.tmp     beside NAME while that is being written

What a killed process left aside is deleted when the same file is written again, or by `clear_leftovers`.
"""

import contextlib
import errno
import functools
import hashlib
import itertools
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

STALE_S = 24 * 3600.0  # after which a file aside is a leftover although nobody can say whether its writer is alive
LONGEST = 200  # bytes of a name that stand in the name aside: a file system takes 255
# the second form is that of earlier versions
_ASIDE = re.compile(r"\..+?\.(?:(?P<process>[0-9a-f]{8}\.\d+\.\d+)\.\d+|\d+|[0-9a-f]{32})\.tmp")

_numbers = itertools.count()


@contextmanager
def whole(path: Path, sync: bool = True) -> Iterator[Path]:
    """A path to write aside of `path`; at the end flushed (if `sync`) and renamed to it, removed where something went wrong.

    sync: also whole after a power cut; and what killed processes left of this file is deleted first.

    Raises:
        OSError: it cannot be written; what stood at `path` still stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if sync:
        clear_leftovers_of(path)
    aside = aside_of(path)
    try:
        yield aside
        if sync:
            with open(aside, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, sync: bool = True) -> None:
    """Puts `data` at `path` whole or not at all; with `sync` also after a power cut.

    Raises:
        OSError: it cannot be written; what stood at `path` still stands.
    """
    with whole(path, sync) as aside:
        aside.write_bytes(data)


def open_regular(path: Path) -> BufferedReader:
    """A regular file, open for reading. A device or a pipe could be without end, and opening a pipe can wait for ever.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file, of at most `limit` bytes where one is given.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    with open_regular(path) as file:
        data = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
    return data


def aside_of(path: Path) -> Path:
    """Where to write a file or folder before it is renamed to `path`: another place each time, for threads."""
    return path.with_name(f".{_shown(path.name)}.{this_process()}.{next(_numbers)}.tmp")


def clear_leftovers(folder: Path) -> None:
    """Deletes what killed processes left aside anywhere below `folder`; what cannot be deleted stays."""
    for above, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            if name.endswith(".tmp") and (found := _ASIDE.fullmatch(name)):
                _delete_if_left(Path(above, name), found["process"])


def clear_leftovers_of(path: Path) -> None:
    """Deletes what killed processes left aside of this very file or folder; what cannot be deleted stays."""
    begin = f".{_shown(path.name)}."
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(begin) and (found := _ASIDE.fullmatch(entry.name)):
                _delete_if_left(Path(entry.path), found["process"])


def this_process() -> str:
    """HOST.PID.START, which no other process has: a pid alone is given again, and every host has its own ones."""
    return f"{_host()}.{os.getpid()}.{_start(os.getpid())}"


def is_alive(process: str) -> bool | None:
    """Whether the process that `this_process` named is alive; None where only another host could say."""
    host, pid, start = process.split(".")
    if host != _host():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    return _start(int(pid)) in (0, int(start))


def _delete_if_left(aside: Path, process: str | None) -> None:
    alive = is_alive(process) if process else None
    with contextlib.suppress(OSError):
        if alive or (alive is None and time.time() - aside.lstat().st_mtime < STALE_S):
            return
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink()


def _shown(name: str) -> str:
    return name if len(os.fsencode(name)) <= LONGEST else hashlib.sha256(os.fsencode(name)).hexdigest()


def _start(pid: int) -> int:
    """When a process started, in ticks since the machine did; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


@functools.cache
def _host() -> str:
    """8 hex digits for this host since it started, and this container: within them a pid means one process at a time."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
