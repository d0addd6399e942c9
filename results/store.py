"""The store: a folder of plain files, and the one class that owns every path in it.

    <store>/<target>/<protocol>/<source>/<backbone>/<run>/{record.json, evidence.npz, history.csv, certificate.json}
    <store>/units/<kind>/<fingerprint>/            what units leave for the units after them
    <store>/cache/                                 can be deleted at any time

Every file is written aside, flushed and renamed, and a run's record.json comes last: it is whole or not there.
"""

import contextlib
import errno
import json
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from results.evidence import MOST_BYTES, Evidence, sha256
from results.locks import LocksError, try_locks
from results.record import SCHEMA_VERSION, RunRecord
from safe_io.files import MOST_TEXT_BYTES, clear_leftovers, open_regular, read_regular, write_whole

LEAKS = "leaks"  # in a store: what of a target's test images its sources have seen
SUBMISSIONS, RUNS = "submissions", "runs"  # beside a store: submissions/<source>/runs, each a store of its own
MOST_SHOWN = 200  # characters of what a bad record holds that are told
RUN_DEPTH = 5  # folders above a record: target, protocol, source, backbone, run


class StoreError(Exception):
    """The store cannot be read or written; the message says where and what to do."""


@dataclass(frozen=True)
class Unreadable:
    """A record that is there but cannot be used."""

    path: Path
    why: str


def slug(name: str) -> str:
    """A folder name for any name: no separators, no leading dot. The record holds the true name."""
    return re.sub(r"[^A-Za-z0-9._+~-]", "-", name.replace("/", "--")).lstrip(".") or "-"


def write_atomic(path: Path, data: bytes) -> None:
    """Puts `data` at `path` whole or not at all: written aside, flushed to the disk, renamed.

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
    """Paths, reads and writes of one store folder. Makes nothing until something is written."""

    def __init__(self, root: str | Path, cache: Path | None = None) -> None:
        """cache: a folder for what may be deleted at any time; the store's own where none is given."""
        self.root = Path(root)
        self._cache = cache or self.root / "cache"

    # -- paths ------------------------------------------------------------------------------------------------------

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

    def evidence_of_row(self, row: Mapping[Any, Any]) -> tuple[Path, Path, str, str]:
        """(root of its store, folder, run, checksum) of the evidence of a row of the table: a key, and what `evidence_at` takes."""
        held = self.of_row(row)
        return held.root, held.folder_of_row(row), str(row["run"]), str(row["evidence_sha256"])

    def cache_file(self, name: str) -> Path:
        """A file that may be deleted at any time."""
        return self._cache / name

    # -- writing ----------------------------------------------------------------------------------------------------

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

    def _refuse_file(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root} is a file, not a folder: name another store with --store DIR or BENCH_STORE")

    def write_record(
        self, record: RunRecord, evidence: Evidence | None = None, extra: Mapping[str, str] | None = None
    ) -> Path:
        """Writes a run's folder: evidence and the texts in `extra` first, record.json last. Returns the folder.

        A failure never replaces a good record of the same run: a worker may die after its work was done.
        """
        folder = self.folder_of(record)
        if record.status != "ok" and self.find_ok(folder, record.run):
            return folder
        for name, text in (extra or {}).items():
            write_atomic(folder / name, text.encode())
        if evidence is not None:
            data = evidence.to_bytes()
            if sha256(data) != record.evidence_sha256:
                raise ValueError(f"{folder}: the record's evidence_sha256 is not that of the evidence")
            write_atomic(folder / "evidence.npz", data)
        write_atomic(folder / "record.json", (record.model_dump_json(indent=1) + "\n").encode())
        if record.status == "ok":
            (folder / "error.txt").unlink(missing_ok=True)  # of an attempt before this one
        return folder

    # -- reading ----------------------------------------------------------------------------------------------------

    def runs(self) -> dict[str, str]:
        """Folder of every run that has a record, below the store -> text that changes when record or evidence do. Sorted.

        Raises:
            StoreError: there is no such folder.
        """
        self._refuse_file()
        if not self.root.is_dir():
            raise StoreError(
                f"no store at {self.root}: run `bench run --matrix demo` first, or name one with --store DIR or BENCH_STORE"
            )
        folders = [""]
        for depth in range(
            RUN_DEPTH
        ):  # target, protocol, source, backbone, run: by names, which takes a tenth of a glob
            folders = [
                f"{above}/{entry.name}" if above else entry.name
                for above in folders
                for entry in _folders(self.root / above)
                if depth < RUN_DEPTH - 1 or (entry.name.startswith("r") and "-" in entry.name)
            ]
        root = os.fspath(self.root)
        seen = ((folder, _state(f"{root}/{folder}")) for folder in sorted(folders))
        return {folder: state for folder, state in seen if state is not None}

    def record_paths(self) -> list[Path]:
        """Every record.json below the store, sorted."""
        return [self.root / folder / "record.json" for folder in self.runs()]

    def read_records(self, folders: Iterable[str] | None = None) -> tuple[list[RunRecord], list[Unreadable]]:
        """(records, those that cannot be read). A torn record is never half used, and the next run makes it anew.

        folders: of `runs()`; all of them unless they are named.
        """
        found = [self._read(self.root / folder) for folder in (self.runs() if folders is None else folders)]
        return [r for r in found if isinstance(r, RunRecord)], [b for b in found if isinstance(b, Unreadable)]

    def find_record(self, folder: Path, run: str) -> RunRecord | None:
        """The readable record of this very run in its folder, or None."""
        found = self._read(folder) if (folder / "record.json").is_file() else None
        return found if isinstance(found, RunRecord) and found.run == run else None

    def record_of_row(self, row: Mapping[Any, Any]) -> RunRecord | None:
        """The record that a row of the table was read from, or None where it is gone."""
        held = self.of_row(row)
        return held.find_record(held.folder_of_row(row), str(row["run"]))

    def find_ok(self, folder: Path, run: str) -> bool:
        """Whether this very run was measured."""
        found = self.find_record(folder, run)
        return found is not None and found.status == "ok"

    def _read(self, folder: Path) -> RunRecord | Unreadable:
        path, data = folder / "record.json", b""
        try:
            data = read_regular(path, MOST_TEXT_BYTES, links=True)
            record = RunRecord.model_validate_json(data)
        except ValidationError as error:
            if newer := _newer(data):
                return Unreadable(path, newer)
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            return Unreadable(path, f"{where[:MOST_SHOWN]}: {first['msg'][:MOST_SHOWN]}")
        except OSError as error:
            return Unreadable(path, error.strerror or str(error))
        if self.folder_of(record) != folder:  # a copy would count as one more replicate
            return Unreadable(path, "the folder is not that of the record in it: was it copied or renamed?")
        if record.status == "ok" and (why := _no_evidence(folder / "evidence.npz")):
            return Unreadable(path, f"evidence.npz is {why}, so no number of it can be recomputed")
        return record

    def read_evidence(self, record: RunRecord) -> Evidence:
        """The evidence of a run, checked against its record.

        Raises:
            StoreError: it is missing, damaged, or is not what the record was made from.
        """
        path = self.folder_of(record) / "evidence.npz"
        try:
            data = read_regular(path, MOST_BYTES, links=True)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        if sha256(data) != record.evidence_sha256:
            raise StoreError(
                f"{path} is not the evidence that record.json beside it was made from: its checksum differs"
            )
        try:
            return Evidence.from_bytes(data)
        except ValueError as error:
            raise StoreError(f"{path}: {error}") from error

    def evidence_at(self, folder: Path, run: str, evidence_sha256: str) -> Evidence:
        """The evidence of a run whose record a table was read from, as it was then: what is kept of it goes by this checksum.

        Raises:
            StoreError: record or evidence is not that any more.
        """
        record = self.find_record(folder, run)
        if record is None or record.evidence_sha256 != evidence_sha256:
            raise StoreError(f"the record in {folder} has changed since the table was read: ask again")
        return self.read_evidence(record)


def _no_evidence(path: Path) -> str | None:
    """Why a file can be no evidence, without reading it whole; None where it can be."""
    try:
        with open_regular(path) as file:
            return None if zipfile.is_zipfile(file) else "torn"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _folders(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if _is_folder(entry)]
    except OSError:  # it has just gone
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself must not hide what lies beside it
        return False


def _state(folder: str) -> str | None:
    """Size and time of a run's record and evidence; None without a record."""
    told: list[str] = []
    for name in ("record.json", "evidence.npz"):  # a record counts only with its evidence
        try:
            info = os.stat(f"{folder}/{name}")
        except OSError:
            if not told and not os.path.lexists(f"{folder}/{name}"):
                return None  # a link that leads nowhere is a record that cannot be read
            continue
        told.append(f"{info.st_size} {info.st_mtime_ns}")
    return " ".join(told)


def _newer(data: bytes) -> str | None:
    """Says that a record was made by a newer version, where it was."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        version = json.loads(data).get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            return f"a newer version of satir-bench made it (schema {version}, this one reads {SCHEMA_VERSION}): update"
    return None


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
