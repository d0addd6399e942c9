"""Reading a file that must be as it was listed."""

import hashlib
import os
from pathlib import Path

from safe_io.files import read_regular


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
    data = read_regular(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Changed(f"{path} has changed since it was listed; let it be and run the same command again")
    return data
