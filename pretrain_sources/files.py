"""Writing a file so that a kill at any moment leaves it whole or not there, and reading one that must be as it was listed."""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


class Changed(Exception):
    """A file is not the one that was listed a moment ago; the message names it."""


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


def read_unchanged(path: Path, sha256: str) -> bytes:
    """The bytes of a file that was listed with this sha256.

    Raises:
        Changed: it has other bytes by now. OSError: it cannot be read.
    """
    data = read_regular(path)
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
