"""Parquet cache of the runs of a store, so that only changed records are read again."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from results.record import TEST, RunRecord, column_docs
from results.record_files import Unreadable, read_records
from results.store import Store, StoreError, write_atomic
from safe_io.files import read_regular, sealed, unsealed

AT_A_TIME = 2000  # records in memory at a time
MOST_CACHED_BYTES = 2**31
COLUMNS = tuple(column_docs())
_OF_FILE = ("_folder", "_seen")  # cache columns: folder of the run, and the state of its files
Check = Callable[[Store, RunRecord], RunRecord | Unreadable]  # of a submitted record
_AS_JSON = ("schedule", "packages", "normalisation", "further", "training_val_mious")  # become JSON text in the table


def cached_runs(store: Store, seen: Mapping[str, str], check: Check | None = None) -> pd.DataFrame:
    """Return the runs of one store, unchanged ones from the cache.

    seen: result of `run_folders`. check: applied to records that are not in the cache.
    """
    import pyarrow as pa

    cached, is_current = _load(store), False
    if cached is not None:
        same = [seen.get(f) == s for f, s in zip(*(cached[name].to_pylist() for name in _OF_FILE), strict=True)]
        is_current = all(same)
        cached = cached if is_current else cached.filter(pa.array(same))
    known = set() if cached is None else set(cached["_folder"].to_pylist())
    parts, bad = _read_parts(store, {f: s for f, s in seen.items() if f not in known}, check)
    parts = parts if cached is None else [cached, *(part for part in parts if part.num_rows)]
    if len(parts) > 1 or cached is None:
        cached = pa.concat_tables(parts, promote_options="permissive").sort_by("_folder").replace_schema_metadata()
        is_current = False
    if not is_current:
        _save(cached, store)
    runs: pd.DataFrame = cached.drop_columns(list(_OF_FILE)).to_pandas().assign(test_split=TEST)
    runs.attrs["unreadable"] = [f"{one.path}: {one.why}" for one in bad]
    return runs


def _read_parts(store: Store, seen: Mapping[str, str], check: Check | None) -> tuple[list[Any], list[Unreadable]]:
    """Return (pyarrow.Tables of the records in these folders, at least one; unreadable records)."""
    import pyarrow as pa

    folders = list(seen)
    parts: list[Any] = []
    bad: list[Unreadable] = []
    for begin in range(0, max(1, len(folders)), AT_A_TIME):
        records, unreadable = read_records(store, folders[begin : begin + AT_A_TIME])
        checked = records if check is None else [check(store, record) for record in records]
        bad += [*unreadable, *(one for one in checked if isinstance(one, Unreadable))]
        rows = []
        for record in (one for one in checked if isinstance(one, RunRecord)):
            folder = store.folder_of(record).relative_to(store.root).as_posix()
            rows.append(_row(record) | {"_folder": folder, "_seen": seen[folder]})
        if rows or not parts:  # pa.Table.from_pandas would type an empty column as numeric
            parts.append(pa.table({name: pa.array([row.get(name) for row in rows]) for name in (*COLUMNS, *_OF_FILE)}))
    return parts, bad


def _row(record: RunRecord) -> dict[str, Any]:
    parts = {"scores", "tuning", "pretraining", "provenance", "cost", "settings", "schema_version"}
    flat = dict(RunRecord.later) | record.model_dump(exclude=parts)
    for part in (record.scores, record.tuning, record.pretraining, record.provenance, record.cost):
        flat |= part.model_dump() if part is not None else {}
    return flat | {name: json.dumps(flat[name], sort_keys=True) for name in _AS_JSON if flat.get(name) is not None}


_VERSION = f"runs 2 {','.join(COLUMNS)}"  # increase when the conversion from record to row changes


def _cache(store: Store) -> Path:
    return store.cache_file(f"runs-{hashlib.sha256(_VERSION.encode()).hexdigest()[:12]}.sealed")


def _load(store: Store) -> Any:  # noqa: ANN401 - a pyarrow.Table
    """Return the cached table, or None if it is missing or invalid."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        data = unsealed(read_regular(_cache(store), MOST_CACHED_BYTES, links=True), _VERSION)
        table = parquet.read_table(pa.BufferReader(data))
    except (OSError, ValueError, pa.ArrowException):  # another version of pyarrow may not be able to read it
        return None
    return table if table.column_names == [*COLUMNS, *_OF_FILE] else None


def _save(table: Any, store: Store) -> None:  # noqa: ANN401
    """Write the cache; skipped for read-only stores and for folders without runs."""
    from pyarrow import parquet

    if not table.num_rows:
        return
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    try:
        write_atomic(_cache(store), sealed(buffer.getvalue(), _VERSION))
    except StoreError:
        return
    for old in store.cache_file("").glob("runs-*"):
        if old != _cache(store):
            with contextlib.suppress(OSError):
                old.unlink()
