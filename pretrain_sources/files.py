"""Writing a file so that a kill at any moment leaves it whole or not there, and reading one that must be as it was listed."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Changed(Exception):
    """A file is not the one that was listed a moment ago; the message names it."""


def stamp(info: os.stat_result) -> str:
    """What changes with a file, short of its bytes: size, time of its content, time of its entry, and number on its disk.

    No program can set the time of the entry, so a file that was replaced or edited and given back its old time (`cp -p`,
    `touch -r`) is noticed. Not noticed: a change in place, of the same size, within one tick of the disk's clock (some
    milliseconds) of the look before; a clock that was set back; disks that keep no such time (FAT). A hard link to the file or a
    change of its mode counts as a change, though it is none.
    """
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}"


def read_unchanged(path: Path, sha256: str) -> bytes:
    """The bytes of a file that was listed with this sha256.

    Raises:
        Changed: it has other bytes by now. OSError: it cannot be read.
    """
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Changed(f"{path} has changed since it was listed; let it be and run the same command again")
    return data


@contextmanager
def whole(path: Path, sync: bool = True) -> Iterator[Path]:
    """A path to write aside of `path`; at the end flushed (if `sync`) and renamed to it, removed where something went wrong.

    Raises:
        OSError: it cannot be written; what stood at `path` still stands.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
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
