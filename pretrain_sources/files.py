"""Reading a file that must be as it was listed."""

import hashlib
from pathlib import Path

from safe_io.files import read_regular


class Changed(Exception):
    """A file is not the one that was listed a moment ago; the message names it."""


def read_unchanged(path: Path, sha256: str) -> bytes:
    """The bytes of a file that was listed with this sha256.

    Raises:
        Changed: it has other bytes by now. OSError: it cannot be read.
    """
    data = read_regular(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Changed(f"{path} has changed since it was listed; let it be and run the same command again")
    return data
