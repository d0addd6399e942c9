"""Files: atomic writes, reads of regular files up to a size limit, digests and stamps, and checksummed caches.

A file is written to a temporary file in the same folder, flushed and renamed:

    .NAME.HOST.PID.START.NUMBER.tmp     exists while NAME is being written

Temporary files of killed processes are deleted when the same file is written again, or by `clear_leftovers`.
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

STALE_S = 24 * 3600.0  # age at which a temporary file of another host counts as a leftover
SEAL_BYTES = 32
MOST_TEXT_BYTES = 2**24  # of a record, verdict, certificate, finding or list of trials: a hundred times the usual size
LONGEST = 200  # bytes of a name that go into the temporary name: file systems allow 255
# the last two forms are those of earlier versions
_ASIDE = re.compile(r"\..+?\.(?:(?P<process>[0-9a-f]{8}\.\d+\.\d+)\.\d+|\d+|[0-9a-f]{32})\.tmp")

_numbers = itertools.count()


@contextmanager
def whole(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path; rename it to `path` on success, delete it on failure.

    sync: flush before renaming, so that the file survives a power cut; and first delete leftovers of killed processes.

    Raises:
        OSError: it cannot be written; `path` is unchanged.
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
    except OSError as error:
        if error.errno is not None:  # a full disk names no file; an error without a number has its own message
            error.filename = error.filename or str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, sync: bool = True) -> None:
    """Write `data` to `path` atomically; with `sync` also across a power cut.

    Raises:
        OSError: it cannot be written; `path` is unchanged.
    """
    with whole(path, sync) as aside:
        aside.write_bytes(data)


def open_regular(path: Path, links: bool = True) -> BufferedReader:
    """Open a regular file for reading. Devices and pipes are refused: they can be endless or block.

    links: follow the last part of the path if it is a symbolic link.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is a symbolic link and `links` is false.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW)
    try:
        file = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115 - the caller closes it
    except OSError as error:
        if not links and error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, not a regular file", str(path)) from error
        raise
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path, limit: int | None = None, links: bool = True) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read, is not a regular file, is a symbolic link and `links` is false, or is larger.
    """
    with open_regular(path, links) as file:
        if limit is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1) if size <= limit else b""
    if max(size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
    return data


def stamp(info: os.stat_result) -> str:
    """Return a file's size, mtime, ctime and inode, as a cheap test for changes.

    No program can set the ctime, so an edited file with its old mtime (`cp -p`, `touch -r`) is detected. Not detected: a change
    in place, of the same size, within one tick of the file system's clock (some milliseconds); a clock that was set back; file
    systems without ctime (FAT). A new hard link or another mode counts as a change.
    """
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}"


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file's bytes, read once for each `stamp`.

    Raises:
        OSError: it cannot be read.
    """
    return _content(path.absolute(), stamp(path.stat()))


def short_digest(sha256: str) -> str:
    """Return the first digits of a digest, for messages."""
    return f"{sha256[:12]}..."


def sealed(data: bytes, version: str) -> bytes:
    """Prefix cache data with a checksum over the data and `version`. Change `version` when the format or meaning changes."""
    return _seal(data, version) + data


def unsealed(held: bytes, version: str) -> bytes:
    """Return the data passed to `sealed`.

    Raises:
        ValueError: it was damaged, or sealed with another version.
    """
    data = held[SEAL_BYTES:]
    if held[:SEAL_BYTES] != _seal(data, version):
        raise ValueError(f"damaged, or not a cache of version {version[:40]}")
    return data


@functools.cache
def _content(path: Path, state: str) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(data: bytes, version: str) -> bytes:
    return hashlib.sha256(version.encode() + b"\n" + data).digest()


def aside_of(path: Path) -> Path:
    """Return a new temporary path for a file or folder that will be renamed to `path`. Safe for threads."""
    return path.with_name(f".{_short_name(path.name)}.{this_process()}.{next(_numbers)}.tmp")


def clear_leftovers(folder: Path) -> None:
    """Delete temporary files of killed processes anywhere below `folder`; ignore those that cannot be deleted."""
    for above, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            if name.endswith(".tmp") and (match := _ASIDE.fullmatch(name)):
                _delete_if_left(Path(above, name), match["process"])


def clear_leftovers_of(path: Path) -> None:
    """Delete temporary files that killed processes left of this file or folder; ignore those that cannot be deleted."""
    begin = f".{_short_name(path.name)}."
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(begin) and (match := _ASIDE.fullmatch(entry.name)):
                _delete_if_left(Path(entry.path), match["process"])


def this_process() -> str:
    """Return HOST.PID.START, a unique name of this process: PIDs alone are reused, and repeat across hosts."""
    return f"{_host()}.{os.getpid()}.{_start(os.getpid())}"


def is_alive(process: str) -> bool | None:
    """Return whether a process named by `this_process` is alive; None if it ran on another host."""
    host, pid, start = process.split(".")
    if host != _host():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
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


def _short_name(name: str) -> str:
    return name if len(os.fsencode(name)) <= LONGEST else hashlib.sha256(os.fsencode(name)).hexdigest()


def _start(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot; 0 where the system does not report it."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


@functools.cache
def _host() -> str:
    """Return 8 hex digits for this boot of this host and container, within which running processes have unique PIDs."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
