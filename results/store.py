"""The store: a folder of plain files, and the class that defines its layout.

    <store>/<target>/<protocol>/<source>/<backbone>/<run>/{record.json, evidence.npz, history.csv, certificate.json}
                                                          and evidence-SPLIT.npz of each further test split
    <store>/units/<kind>/<fingerprint>/            outputs of units for later units
    <store>/cache/                                 safe to delete at any time

Every file is written to a temporary file, flushed and renamed, and record.json of a run is written last, so files are never
partial. `results.record_files` reads and writes records; `results.evidence_files` reads evidence.
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

LEAKS = "leaks"  # in a store: findings of `bench leaks`
PLANS = "plans"  # in a store: plans of matrices, and cards of targets that do not ship
SUBMISSIONS, RUNS = "submissions", "runs"  # next to a store: submissions/<source>/runs, each a store


class StoreError(Exception):
    """The store cannot be read or written; the message says where and what to do."""


def slug(name: str) -> str:
    """Turn any name into a folder name without separators or a leading dot. The record holds the original name."""
    return re.sub(r"[^A-Za-z0-9._+~-]", "-", name.replace("/", "--")).lstrip(".") or "-"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Raises:
        StoreError: the folder is not writable or the disk is full; an existing file at `path` is unchanged.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise cannot_write(path, error) from error


def is_unwritable(error: OSError) -> bool:
    """Return whether the disk is full or read-only, so that all other writes would fail, too."""
    # safe_io raises EFBIG with a message of its own for files that are too large to read
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG) and error.strerror == os.strerror(
        error.errno
    )


def cannot_write(path: Path, error: OSError) -> StoreError:
    """Return a StoreError that explains `error` for `path`."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free some space" if full else "choose a writable folder"
    return StoreError(
        f"cannot write {path}: {os.strerror(error.errno or 0)}. Finished work is kept; {fix} and run the same command again."
    )


class Store:
    """Paths of a store. Nothing is created until something is written."""

    def __init__(self, root: str | Path, cache: Path | None = None) -> None:
        """cache: folder for cached files; default: `cache` in the store."""
        self.root = Path(root)
        self._cache = cache or self.root / "cache"

    def unit_dir(self, kind: str, fingerprint: str) -> Path:
        """Return the folder of a unit."""
        return self.root / "units" / kind / fingerprint

    def run_dir(self, target: str, protocol: str, source: str, backbone: str, replicate: int, run: str) -> Path:
        """Return the folder of a run."""
        return self.root / slug(target) / slug(protocol) / slug(source) / slug(backbone) / f"r{replicate}-{run[:12]}"

    def folder_of(self, record: RunRecord) -> Path:
        """Return the folder of the run of a record."""
        return self.run_dir(
            record.target, record.protocol, record.source, record.backbone, record.replicate, record.run
        )

    def folder_of_row(self, row: Mapping[Any, Any]) -> Path:
        """Return the folder of the run of a table row."""
        names = (str(row[name]) for name in ("target", "protocol", "source", "backbone"))
        target, protocol, source, backbone = names
        return self.run_dir(target, protocol, source, backbone, int(row["replicate"]), str(row["run"]))

    def of_row(self, row: Mapping[Any, Any]) -> "Store":
        """Return the store with the run of a table row: this store, or that of a submission next to it."""
        name = row.get("submission")
        return Store(self.root.parent / SUBMISSIONS / slug(name) / RUNS) if isinstance(name, str) else self

    def cache_file(self, name: str) -> Path:
        """Return the path of a cached file."""
        return self._cache / name

    def make(self) -> None:
        """Create the folder, check that it can be written and locked, and delete temporary files of killed processes.

        Raises:
            StoreError: the folder cannot be created, written or locked.
        """
        self._refuse_file()
        probe = self.root / f".write-test.{os.getpid()}"
        try:
            write_atomic(probe, b"")
        except StoreError as error:
            raise StoreError(f"{error} (choose the store with --store DIR or BENCH_STORE)") from error
        probe.unlink(missing_ok=True)
        try:
            try_locks(self.root)
        except LocksError as error:
            raise StoreError(str(error)) from error
        clear_leftovers(self.root)

    def require(self) -> None:
        """Check that the store exists.

        Raises:
            StoreError: it does not.
        """
        self._refuse_file()
        if not self.root.is_dir():
            raise StoreError(
                f"no store at {self.root}: run `bench run --matrix demo` first, or choose a store with --store DIR or BENCH_STORE"
            )

    def _refuse_file(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(
                f"{self.root} is a file, not a folder: choose another store with --store DIR or BENCH_STORE"
            )


def read_json_lines(path: Path) -> Iterator[dict[str, object]]:
    """Yield the complete lines of a JSON Lines file; a line truncated by a kill is skipped."""
    if not path.is_file():
        return
    for line in read_regular(path, MOST_TEXT_BYTES, links=True).split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return  # lines after a truncated one were never acknowledged
        if not isinstance(row, dict):
            return
        yield row
