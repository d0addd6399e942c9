"""Files: written whole or not at all (aside, flushed, renamed), read only where they are files and not too large, told
apart by digests and stamps, and sealed.

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
SEAL_BYTES = 32
MOST_TEXT_BYTES = 2**24  # of a record, verdict, certificate, finding or list of trials: a hundred times what any has
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
    except OSError as error:
        if error.errno is not None:  # a full disk names no file; an error without a number has a text of its own
            error.filename = error.filename or str(path)
        raise
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


def open_regular(path: Path, links: bool = True) -> BufferedReader:
    """A regular file, open for reading. A device or a pipe could be without end, and opening a pipe can wait for ever.

    links: follow the last part of the path where it is a symbolic link.

    Raises:
        OSError: it cannot be opened, is no regular file, or is a link that is not to be followed.
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
    """The bytes of a regular file, of at most `limit` bytes where one is given.

    Raises:
        OSError: it cannot be read, is no regular file, is a link that is not to be followed, or is larger.
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
    """What changes with a file, short of its bytes: size, time of its content, time of its entry, and number on its disk.

    No program can set the time of the entry, so a file that was replaced or edited and given back its old time (`cp -p`,
    `touch -r`) is noticed. Not noticed: a change in place, of the same size, within one tick of the disk's clock (some
    milliseconds) of the look before; a clock that was set back; disks that keep no such time (FAT). A hard link to the file or a
    change of its mode counts as a change, though it is none.
    """
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}"


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes, read once for each state that `stamp` tells apart.

    Raises:
        OSError: it cannot be read.
    """
    return _content(path.absolute(), stamp(path.stat()))


def short_digest(sha256: str) -> str:
    """Enough of a digest to tell it from others."""
    return f"{sha256[:12]}..."


def sealed(data: bytes, version: str) -> bytes:
    """The data of a cache behind a checksum over it and over `version`, which must change whenever the same data would mean
    another thing."""
    return _seal(data, version) + data


def unsealed(held: bytes, version: str) -> bytes:
    """What `sealed` was given for the same version.

    Raises:
        ValueError: a bit of it has changed since, or the version is another.
    """
    data = held[SEAL_BYTES:]
    if held[:SEAL_BYTES] != _seal(data, version):
        raise ValueError(f"damaged, or no cache of the version {version[:40]}")
    return data


@functools.cache
def _content(path: Path, state: str) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(data: bytes, version: str) -> bytes:
    return hashlib.sha256(version.encode() + b"\n" + data).digest()


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
