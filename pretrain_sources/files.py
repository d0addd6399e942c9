"""Writing a file so that a kill at any moment leaves it whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write aside of `path`; flushed and renamed to it at the end, removed where something went wrong.

    Raises:
        OSError: it cannot be written; what stood at `path` still stands.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Puts `data` at `path` whole or not at all.

    Raises:
        OSError: it cannot be written; what stood at `path` still stands.
    """
    with whole(path) as aside:
        aside.write_bytes(data)
