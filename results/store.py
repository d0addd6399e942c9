"""The store: a folder of plain files, and the one class that knows where each of them lies.

    <store>/<target>/<protocol>/<source>/<backbone>/<run>/{record.json, evidence.npz, history.csv, certificate.json}
    <store>/units/<kind>/<fingerprint>/            what units leave for the units after them
    <store>/cache/                                 can be deleted at any time

Every file is written aside, flushed and renamed, and a run's record.json comes last: it is whole or not there. Records are read
and written by `results.record_files`, evidence is read by `results.evidence_files`.
"""

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from results.locks import LocksError, try_locks
from results.record import RunRecord
from safe_io.files import MOST_TEXT_BYTES, clear_leftovers, read_regular, write_whole

LEAKS = "leaks"  # in a store: what of a target's test images its sources have seen
SUBMISSIONS, RUNS = "submissions", "runs"  # beside a store: submissions/<source>/runs, each a store of its own


class StoreError(Exception):
    """The store cannot be read or written; the message says where and what to do."""


def slug(name: str) -> str:
    """A folder name for any name: no separators, no leading dot. The record holds the true name."""
    return re.sub(r"[^A-Za-z0-9._+~-]", "-", name.replace("/", "--")).lstrip(".") or "-"


def write_atomic(path: Path, data: bytes) -> None:
    """`safe_files.write_whole`, with words for the user where it fails.

    Raises:
        StoreError: the folder cannot be written or the disk is full; what stood at `path` still stands.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise cannot_write(path, error) from error


def is_unwritable(error: OSError) -> bool:
    """Whether a disk is full or takes nothing, so that nothing else could be written either."""
    # a file that is too large to be read has words of its own
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG) and error.strerror == os.strerror(
        error.errno
    )


def cannot_write(path: Path, error: OSError) -> StoreError:
    """The StoreError that tells a user what `error` means for `path`."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    mend = "free some space" if full else "choose a folder that can be written"
    return StoreError(
        f"cannot write {path}: {os.strerror(error.errno or 0)}. What was finished is kept; {mend} and run the same command again."
    )


class Store:
    """Where everything of one store lies. Makes nothing until something is written."""

    def __init__(self, root: str | Path, cache: Path | None = None) -> None:
        """cache: a folder for what may be deleted at any time; the store's own where none is given."""
        self.root = Path(root)
        self._cache = cache or self.root / "cache"

    def unit_dir(self, kind: str, fingerprint: str) -> Path:
        """Where a unit of this kind leaves its files."""
        return self.root / "units" / kind / fingerprint

    def run_dir(self, target: str, protocol: str, source: str, backbone: str, replicate: int, run: str) -> Path:
        """Where a run leaves its record and evidence."""
        return self.root / slug(target) / slug(protocol) / slug(source) / slug(backbone) / f"r{replicate}-{run[:12]}"

    def folder_of(self, record: RunRecord) -> Path:
        """Where this record belongs."""
        return self.run_dir(
            record.target, record.protocol, record.source, record.backbone, record.replicate, record.run
        )

    def folder_of_row(self, row: Mapping[Any, Any]) -> Path:
        """Where the run of a row of the table left its record."""
        names = (str(row[name]) for name in ("target", "protocol", "source", "backbone"))
        target, protocol, source, backbone = names
        return self.run_dir(target, protocol, source, backbone, int(row["replicate"]), str(row["run"]))

    def of_row(self, row: Mapping[Any, Any]) -> "Store":
        """The store that holds the run of a row of the table: this one, or that of a submission beside it."""
        name = row.get("submission")
        return Store(self.root.parent / SUBMISSIONS / slug(name) / RUNS) if isinstance(name, str) else self

    def cache_file(self, name: str) -> Path:
        """A file that may be deleted at any time."""
        return self._cache / name

    def make(self) -> None:
        """Makes the folder, proves that it can be written and locked, and deletes what killed processes left aside in it.

        Raises:
            StoreError: it cannot.
        """
        self._refuse_file()
        probe = self.root / f".write-test.{os.getpid()}"
        try:
            write_atomic(probe, b"")
        except StoreError as error:
            raise StoreError(f"{error} (--store DIR or BENCH_STORE names it)") from error
        probe.unlink(missing_ok=True)
        try:
            try_locks(self.root)
        except LocksError as error:
            raise StoreError(str(error)) from error
        clear_leftovers(self.root)

    def require(self) -> None:
        """Sees that the folder is there.

        Raises:
            StoreError: it is not.
        """
        self._refuse_file()
        if not self.root.is_dir():
            raise StoreError(
                f"no store at {self.root}: run `bench run --matrix demo` first, or name one with --store DIR or BENCH_STORE"
            )

    def _refuse_file(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root} is a file, not a folder: name another store with --store DIR or BENCH_STORE")


def read_json_lines(path: Path) -> Iterator[dict[str, object]]:
    """The whole lines of a JSON-lines file; a last line that was cut short by a kill is left out."""
    if not path.is_file():
        return
    for line in read_regular(path, MOST_TEXT_BYTES, links=True).split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return  # what follows a torn line was never acknowledged
        if not isinstance(row, dict):
            return
        yield row
