"""Find, read and write the run records of a store."""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from results.evidence import Evidence, sha256
from results.record import SCHEMA_VERSION, TEST, RunRecord, evidence_name
from results.store import Store, write_atomic
from safe_io.files import MOST_TEXT_BYTES, open_regular, read_regular

MOST_SHOWN = 200  # characters quoted from an invalid record
RUN_DEPTH = 5  # folder levels above a record: target, protocol, source, backbone, run


@dataclass(frozen=True)
class Unreadable:
    """A record that exists but cannot be used."""

    path: Path
    why: str


def run_folders(store: Store) -> dict[str, str]:
    """Return folder of each run with a record -> text that changes with its record or evidence. Sorted; relative to the store.

    Raises:
        StoreError: the store does not exist.
    """
    store.require()
    folders = [""]
    for depth in range(RUN_DEPTH):  # ten times faster than a glob
        folders = [
            f"{above}/{entry.name}" if above else entry.name
            for above in folders
            for entry in _folders(store.root / above)
            if depth < RUN_DEPTH - 1 or (entry.name.startswith("r") and "-" in entry.name)
        ]
    root = os.fspath(store.root)
    seen = ((folder, _state(f"{root}/{folder}")) for folder in sorted(folders))
    return {folder: state for folder, state in seen if state is not None}


def read_records(store: Store, folders: Iterable[str] | None = None) -> tuple[list[RunRecord], list[Unreadable]]:
    """Read records; return (records, unreadable records). The next `bench run` replaces unreadable records.

    folders: some of `run_folders`; default: all.
    """
    results = [_read(store, store.root / folder) for folder in (run_folders(store) if folders is None else folders)]
    return [r for r in results if isinstance(r, RunRecord)], [b for b in results if isinstance(b, Unreadable)]


def find_record(store: Store, folder: Path, run: str) -> RunRecord | None:
    """Return the record of a run from its folder, or None if it is missing, unreadable or of another run."""
    record = _read(store, folder) if (folder / "record.json").is_file() else None
    return record if isinstance(record, RunRecord) and record.run == run else None


def record_of_row(store: Store, row: Mapping[Any, Any]) -> RunRecord | None:
    """Return the record behind a table row, or None if it is gone."""
    owner = store.of_row(row)
    return find_record(owner, owner.folder_of_row(row), str(row["run"]))


def write_record(
    store: Store,
    record: RunRecord,
    evidence: Evidence | None = None,
    extra: Mapping[str, str] | None = None,
    further: Mapping[str, Evidence] | None = None,
) -> Path:
    """Write the folder of a run, record.json last, and return it. extra: file name -> text. further: split -> evidence.

    A failed record never replaces an ok record of the same run: a worker may die after the work is done.
    """
    folder = store.folder_of(record)
    if record.status != "ok" and _is_measured(store, folder, record.run):
        return folder
    for name, text in (extra or {}).items():
        write_atomic(folder / name, text.encode())
    if set(further or {}) != set(record.further or {}):
        raise ValueError(f"{folder}: the further test splits of the record are not those of the evidence")
    for split, one in ({} if evidence is None else {TEST: evidence} | dict(further or {})).items():
        data = one.to_bytes()
        if sha256(data) != record.evidence_digest(split):
            raise ValueError(f"{folder}: evidence_sha256 of the record does not match the evidence of {split}")
        write_atomic(folder / evidence_name(split), data)
    write_atomic(folder / "record.json", (record.model_dump_json(indent=1) + "\n").encode())
    if record.status == "ok":
        (folder / "error.txt").unlink(missing_ok=True)  # of a previous attempt
    return folder


def _is_measured(store: Store, folder: Path, run: str) -> bool:
    record = find_record(store, folder, run)
    return record is not None and record.status == "ok"


def _read(store: Store, folder: Path) -> RunRecord | Unreadable:
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
    if store.folder_of(record) != folder:  # a copied folder would count as another replicate
        return Unreadable(
            path, "the folder does not match its record, so it was copied or renamed: delete or restore it"
        )
    for name in map(evidence_name, record.by_split):
        if why := _no_evidence(folder / name):
            return Unreadable(path, f"{name} is {why}, so the scores cannot be recomputed")
    return record


def _no_evidence(path: Path) -> str | None:
    """Return why a file cannot be evidence, without reading all of it, or None."""
    try:
        with open_regular(path) as file:
            return None if zipfile.is_zipfile(file) else "damaged"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _folders(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if _is_folder(entry)]
    except OSError:  # deleted in the meantime
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link must not hide other folders
        return False


def _state(folder: str) -> str | None:
    """Return size and time of record and evidence; None without a record."""
    states: list[str] = []
    try:
        further = sorted(name for name in os.listdir(folder) if name.startswith("evidence-"))
    except OSError:
        further = []
    for name in ("record.json", evidence_name(), *further):  # a record is valid only with its evidence
        try:
            info = os.stat(f"{folder}/{name}")
        except OSError:
            if not states and not os.path.lexists(f"{folder}/{name}"):
                return None  # a broken link counts as an unreadable record
            continue
        states.append(f"{info.st_size} {info.st_mtime_ns}")
    return " ".join(states)


def _newer(data: bytes) -> str | None:
    """Return a message if a newer version made the record, or None."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        version = json.loads(data).get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            return (
                f"made by a newer version of satir-bench (schema {version}, this one reads {SCHEMA_VERSION}): update it"
            )
    return None
