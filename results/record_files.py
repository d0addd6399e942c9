"""The records of a store: found, read and written, each in the folder of its run."""

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
from results.record import SCHEMA_VERSION, RunRecord
from results.store import Store, write_atomic
from safe_io.files import MOST_TEXT_BYTES, open_regular, read_regular

MOST_SHOWN = 200  # characters of what a bad record holds that are told
RUN_DEPTH = 5  # folders above a record: target, protocol, source, backbone, run


@dataclass(frozen=True)
class Unreadable:
    """A record that is there but cannot be used."""

    path: Path
    why: str


def run_folders(store: Store) -> dict[str, str]:
    """Folder of every run that has a record, below the store -> text that changes when record or evidence do. Sorted.

    Raises:
        StoreError: there is no such folder.
    """
    store.require()
    folders = [""]
    for depth in range(RUN_DEPTH):  # target, protocol, source, backbone, run: by names, which takes a tenth of a glob
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
    """(records, those that cannot be read). A torn record is never half used, and the next run makes it anew.

    folders: of `run_folders`; all of them unless they are named.
    """
    found = [_read(store, store.root / folder) for folder in (run_folders(store) if folders is None else folders)]
    return [r for r in found if isinstance(r, RunRecord)], [b for b in found if isinstance(b, Unreadable)]


def find_record(store: Store, folder: Path, run: str) -> RunRecord | None:
    """The readable record of this very run in its folder, or None."""
    found = _read(store, folder) if (folder / "record.json").is_file() else None
    return found if isinstance(found, RunRecord) and found.run == run else None


def record_of_row(store: Store, row: Mapping[Any, Any]) -> RunRecord | None:
    """The record that a row of the table was read from, or None where it is gone."""
    held = store.of_row(row)
    return find_record(held, held.folder_of_row(row), str(row["run"]))


def write_record(
    store: Store, record: RunRecord, evidence: Evidence | None = None, extra: Mapping[str, str] | None = None
) -> Path:
    """Writes a run's folder: evidence and the texts in `extra` first, record.json last. Returns the folder.

    A failure never replaces a good record of the same run: a worker may die after its work was done.
    """
    folder = store.folder_of(record)
    if record.status != "ok" and _is_measured(store, folder, record.run):
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


def _is_measured(store: Store, folder: Path, run: str) -> bool:
    found = find_record(store, folder, run)
    return found is not None and found.status == "ok"


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
    if store.folder_of(record) != folder:  # a copy would count as one more replicate
        return Unreadable(path, "the folder is not that of the record in it: was it copied or renamed?")
    if record.status == "ok" and (why := _no_evidence(folder / "evidence.npz")):
        return Unreadable(path, f"evidence.npz is {why}, so no number of it can be recomputed")
    return record


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
