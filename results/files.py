"""Reading files that somebody else may have put there: regular files alone, of a limited size, and names that can be printed."""

import errno
import os
import stat
from pathlib import Path

MOST_TEXT_BYTES = (
    2**24
)  # of a record, verdict, certificate, finding or list of trials: 16 MB, a hundred times what any has


def read_regular(path: Path, limit: int, links: bool = False) -> bytes:
    """The bytes of a regular file. Never waits for a pipe and never reads a device.

    limit: most bytes that are read. links: follow the last part of the path where it is a symbolic link.

    Raises:
        OSError: it cannot be read, is no regular file, is a link, or is larger than `limit`.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW)
    try:
        file = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115 - closed by `with` below
    except OSError as error:
        if not links and error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, not a regular file", str(path)) from error
        raise
    with file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = file.read(limit + 1) if info.st_size <= limit else b""
        if info.st_size > limit or len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
        return data


def printable(text: object) -> str:
    """The text on one line, with everything escaped that cannot be printed: control characters, bytes that are not UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
