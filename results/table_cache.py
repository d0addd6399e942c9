"""The rows of one store's runs, kept in a Parquet file so that only records that have changed are read again."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from results.record import RunRecord, column_docs
from results.record_files import Unreadable, read_records
from results.store import Store, StoreError, write_atomic
from safe_io.files import read_regular, sealed, unsealed

AT_A_TIME = 2000  # records in memory
MOST_CACHED_BYTES = 2**31
COLUMNS = tuple(column_docs())
_OF_FILE = ("_folder", "_seen")  # in the cache: where a run is, and what changes when its files do
Check = Callable[[Store, RunRecord], RunRecord | Unreadable]  # of a record that somebody brought
_AS_JSON = ("schedule", "packages", "normalisation")  # mappings: text in the table


def cached_runs(store: Store, seen: Mapping[str, str], check: Check | None = None) -> pd.DataFrame:
    """The runs of one store.

    Rows of records that have not changed since come from a Parquet cache. seen: of `run_folders`. check: of records that it lacks.
    """
    import pyarrow as pa

    kept, is_whole = _kept(store), False
    if kept is not None:
        same = [seen.get(f) == s for f, s in zip(*(kept[name].to_pylist() for name in _OF_FILE), strict=True)]
        is_whole = all(same)
        kept = kept if is_whole else kept.filter(pa.array(same))
    known = set() if kept is None else set(kept["_folder"].to_pylist())
    parts, bad = _read_parts(store, {f: s for f, s in seen.items() if f not in known}, check)
    parts = parts if kept is None else [kept, *(part for part in parts if part.num_rows)]
    if len(parts) > 1 or kept is None:
        kept = pa.concat_tables(parts, promote_options="permissive").sort_by("_folder").replace_schema_metadata()
        is_whole = False
    if not is_whole:
        _keep(kept, store)
    found: pd.DataFrame = kept.drop_columns(list(_OF_FILE)).to_pandas()
    found.attrs["unreadable"] = [f"{one.path}: {one.why}" for one in bad]
    return found


def _read_parts(store: Store, seen: Mapping[str, str], check: Check | None) -> tuple[list[Any], list[Unreadable]]:
    """(pyarrow.Tables of the records in these folders, an empty one where there are none; records that cannot be used)."""
    import pyarrow as pa

    folders = list(seen)
    parts: list[Any] = []
    bad: list[Unreadable] = []
    for begin in range(0, max(1, len(folders)), AT_A_TIME):
        records, torn = read_records(store, folders[begin : begin + AT_A_TIME])
        looked = records if check is None else [check(store, record) for record in records]
        bad += [*torn, *(one for one in looked if isinstance(one, Unreadable))]
        rows = []
        for record in (one for one in looked if isinstance(one, RunRecord)):
            folder = store.folder_of(record).relative_to(store.root).as_posix()
            rows.append(_row(record) | {"_folder": folder, "_seen": seen[folder]})
        if rows or not parts:  # from_pandas would call a column without a value one of numbers
            parts.append(pa.table({name: pa.array([row.get(name) for row in rows]) for name in (*COLUMNS, *_OF_FILE)}))
    return parts, bad


def _row(record: RunRecord) -> dict[str, Any]:
    flat = record.model_dump(exclude={"scores", "tuning", "pretraining", "provenance", "settings", "schema_version"})
    for part in (record.scores, record.tuning, record.pretraining, record.provenance):
        flat |= part.model_dump() if part is not None else {}
    return flat | {name: json.dumps(flat[name], sort_keys=True) for name in _AS_JSON if flat.get(name) is not None}


_VERSION = f"runs 1 {','.join(COLUMNS)}"  # raised when a row is made of a record in another way


def _cache(store: Store) -> Path:
    return store.cache_file(f"runs-{hashlib.sha256(_VERSION.encode()).hexdigest()[:12]}.sealed")


def _kept(store: Store) -> Any:  # noqa: ANN401 - a pyarrow.Table
    """The cached table, or None where there is none, or the least doubt about it."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        held = unsealed(read_regular(_cache(store), MOST_CACHED_BYTES, links=True), _VERSION)
        table = parquet.read_table(pa.BufferReader(held))
    except (OSError, ValueError, pa.ArrowException):  # another pyarrow may not read what this one wrote
        return None
    return table if table.column_names == [*COLUMNS, *_OF_FILE] else None


def _keep(table: Any, store: Store) -> None:  # noqa: ANN401
    """Writes the cache; a store that can only be read goes without, and so does a folder that is no store."""
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
