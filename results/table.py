"""DataFrames from a store: one row a run, and the board, one row a cell."""

import contextlib
import functools
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results import known_leaks, metrics, stats
from results.bundle import BundleError, Submission, is_of, submissions, why
from results.escape import visible
from results.record import OF_SUBMISSIONS, RunRecord, column_docs
from results.store import Store, StoreError, Unreadable, write_atomic
from safe_files import read_regular, sealed, unsealed

BOARD = [
    "target",
    "protocol",
    "target_hash",
    "protocol_hash",
    "result_version",
]  # only cells that share these are compared
AT_A_TIME = 2000  # records in memory
MOST_CACHED_BYTES = 2**31
_OF_FILE = ("_folder", "_seen")  # in the cache: where a run is, and what changes when its files do
Run = Mapping[Hashable, Any]  # a row of the table
CELL_NAMES = ["source", "backbone", "train_frac"]
COLUMNS = tuple(column_docs())
_AS_JSON = ("schedule", "packages", "normalisation")  # mappings: text in the table


def runs_frame(store: Store) -> pd.DataFrame:
    """One row a run of the store and of the submissions beside it, columns as in results/COLUMNS.md.

    What cannot be read or shown is named in `.attrs["unreadable"]`.
    """
    found = own_runs(store)
    bundles, bad = submissions(store.root)
    bad = [*found.attrs["unreadable"], *bad]
    known, parts = _Shown(), [found]
    shown: list[Submission] = []
    known.add(found if bundles else found[:0])
    for one in bundles:
        try:
            brought = _brought(store, one, known)
        except Exception as error:  # nobody foresees all that lies there, and the board must not fall with one bundle
            bad.append(f"{one.folder}: {why(error)}")
            continue
        known.add(brought)
        bad += brought.attrs["unreadable"]
        parts, shown = [*parts, brought], [*shown, one]
    whole = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    whole = whole.astype(dict.fromkeys(OF_SUBMISSIONS, "str"))
    found_leaks = known_leaks.read([(store, None), *((Store(one.runs), one.name) for one in shown)])
    bad += [f"{path}: what it says of seen test images cannot be read" for path in found_leaks.unreadable]
    whole.attrs |= {"unreadable": [visible(line) for line in bad], "root": str(store.root), "known_leaks": found_leaks}
    return whole


@dataclass
class _Shown:
    """What the board has so far: its cells, and what all runs of a board say alike."""

    cells: set[str] = field(default_factory=set)
    boards: dict[tuple[str, ...], tuple[object, ...]] = field(default_factory=dict)

    def add(self, runs: pd.DataFrame) -> None:
        """Takes the cells and boards of these runs in."""
        self.cells |= set(_named_cells(runs))
        for run in runs.drop_duplicates(BOARD).to_dict("records"):
            self.boards.setdefault(_board_of(run), _alike(run))

    def has_room_for(self, run: Run) -> bool:
        """Whether the board of this run says what it says, or there is none yet."""
        return self.boards.get(_board_of(run), _alike(run)) == _alike(run)


def _board_of(run: Run) -> tuple[str, ...]:
    return tuple(str(run[name]) for name in BOARD)


def _alike(run: Run) -> tuple[object, ...]:
    return tuple(run["classes"]), bool(run["ranked"]), bool(run["selected_on_test"])


def _brought(store: Store, one: Submission, known: _Shown) -> pd.DataFrame:
    """The runs of a bundle on its own source, without cells that are shown already: what was measured here is not shown twice.

    Raises:
        BundleError: they differ from the other runs of their board in what all runs of a board have in common.
    """
    held = Store(one.runs, cache=store.cache_file(f"submission-{one.folder.name}"))
    runs = _frame(held, held.runs(), _with_evidence).assign(submission=one.name, badge=one.badge)
    own = np.array([is_of(source, one.name) for source in runs["source"]], dtype=bool)
    runs = runs[own & ~_named_cells(runs).isin(known.cells).to_numpy()]
    alike = _Shown(boards=dict(known.boards))
    alike.add(runs)
    if not all(map(alike.has_room_for, runs.to_dict("records"))):
        raise BundleError("its runs differ from the other runs of their board in classes, or in whether it is ranked")
    return runs


def own_runs(store: Store) -> pd.DataFrame:
    """The runs of this store alone, without the submissions beside it."""
    found = _frame(store, store.runs())
    return found.assign(submission=None, badge=None).astype(dict.fromkeys(OF_SUBMISSIONS, "str"))


def _named_cells(runs: pd.DataFrame) -> "pd.Series[str]":
    """The cell of each run, by its names."""
    return runs[[*BOARD, *CELL_NAMES]].astype(str).agg(" ".join, axis=1) if len(runs) else pd.Series([], dtype="str")


def _with_evidence(store: Store, record: RunRecord) -> RunRecord | Unreadable:
    """A record that somebody brought, if its evidence can be read and is of its classes: what is drawn from it relies on that."""
    if record.status != "ok":
        return record
    path = store.folder_of(record) / "evidence.npz"
    try:
        shape = store.read_evidence(record).confusion.shape
    except StoreError as error:
        return Unreadable(path, str(error))
    good = shape[0] and shape[1] == len(record.classes)
    return record if good else Unreadable(path, f"it is of {shape[0]} images and {shape[1]} classes")


def _frame(
    store: Store, seen: Mapping[str, str], check: Callable[[Store, RunRecord], RunRecord | Unreadable] | None = None
) -> pd.DataFrame:
    """The runs of one store.

    Rows of records that have not changed since come from a Parquet cache. seen: `store.runs()`. check: of records that it lacks.
    """
    import pyarrow as pa

    kept = _kept(store)
    if kept is not None:
        same = [seen.get(f) == s for f, s in zip(*(kept[name].to_pylist() for name in _OF_FILE), strict=True)]
        whole = all(same)
        kept = kept if whole else kept.filter(pa.array(same))
    known = set() if kept is None else set(kept["_folder"].to_pylist())
    unknown, bad = [folder for folder in seen if folder not in known], []
    parts = [] if kept is None else [kept]
    for begin in range(0, max(1, len(unknown)), AT_A_TIME):
        records, torn = store.read_records(unknown[begin : begin + AT_A_TIME])
        looked = records if check is None else [check(store, record) for record in records]
        records = [one for one in looked if isinstance(one, RunRecord)]
        bad += [*torn, *(one for one in looked if isinstance(one, Unreadable))]
        folders = [store.folder_of(record).relative_to(store.root).as_posix() for record in records]
        rows = [_row(record) | {"_folder": f, "_seen": seen[f]} for record, f in zip(records, folders, strict=True)]
        if rows or not parts:  # from_pandas would call a column without a value one of numbers
            parts.append(pa.table({name: pa.array([row.get(name) for row in rows]) for name in (*COLUMNS, *_OF_FILE)}))
    if len(parts) > 1 or kept is None:
        kept = pa.concat_tables(parts, promote_options="permissive").sort_by("_folder").replace_schema_metadata()
        _keep(kept, store)
    elif not whole:
        _keep(kept, store)
    found: pd.DataFrame = kept.drop_columns(list(_OF_FILE)).to_pandas()
    found.attrs["unreadable"] = [f"{b.path}: {b.why}" for b in bad]
    return found


def board(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, ranked by mean mIoU among the cells that can be compared: the same BOARD columns and train fraction.

    Ranked is a cell whose replicates are all there and all ok: the mean over the survivors of a source that often
    diverges would flatter it. Of several identities of one name only the newest measured one counts; the others are `stale`.
    """
    by_cell: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs[_USED].to_dict("records"):  # plain rows: slicing a frame for each cell takes a millisecond
        by_cell[tuple(run[name] for name in _SAME)].append(run)
    rows = [_cell_row(cell_runs) for cell_runs in by_cell.values()]
    cells = pd.DataFrame(rows, columns=_BOARD_COLUMNS).astype(dict.fromkeys(_TEXT_OR_MISSING, "str"))
    cells = _mark_stale(cells)
    touched = runs.attrs.get("known_leaks", known_leaks.KnownLeaks())
    for name, share in (("touched", touched.share), ("says_touched", touched.said_share)):
        shares = [share(*key) for key in zip(cells["target_hash"], cells["source"], strict=True)]
        cells[name] = pd.Series(shares, index=cells.index, dtype="float64")
    clean = cells["leak"].isna() & ~(cells["touched"] > 0) & ~(cells["says_touched"] > 0)
    rankable = cells["ranked"].astype(bool) & (cells["status"] == "ok") & clean
    place = cells[rankable].groupby([*BOARD, "train_frac"])["miou"].rank(ascending=False, method="min")
    cells["rank"] = place.reindex(cells.index).astype("Int64")
    order = [*BOARD, "train_frac", "miou", "source", "backbone"]
    return cells.sort_values(
        order, ascending=[name not in ("train_frac", "miou") for name in order], na_position="last", ignore_index=True
    )


def constant_note(runs: pd.DataFrame) -> str | None:
    """What one class everywhere scores on the test images of a board, in words; None where no evidence can be read."""
    for place in np.flatnonzero(runs["status"] == "ok"):
        row = runs.iloc[place].to_dict()
        try:
            best, value = _constant(*Store(runs.attrs["root"]).evidence_of_row(row))
        except StoreError:
            continue
        return f"Predicting '{row['classes'][best]}' everywhere scores {value:.4f} mIoU."
    return None


@functools.lru_cache(maxsize=64)
def _constant(root: Path, folder: Path, run: str, sha: str) -> tuple[int, float]:
    return metrics.constant(Store(root).evidence_at(folder, run, sha).confusion.sum((0, 2)))


_BOARD_COLUMNS = [
    *("rank", "target", "protocol", *CELL_NAMES, "n", "replicates", "miou", "miou_low", "miou_high", "interval_note"),
    *("weighted_f", "weighted_f_low", "weighted_f_high", "val_miou_tuned", "val_miou_default", "trials", "schedule"),
    *("heldout_miou", "heldout_miou_constant", "run_s"),
    *("status", "reason"),
    *(
        "ranked",
        "selected_on_test",
        "label_note",
        "weights",
        "leak",
        "touched",
        "says_touched",
        "badge",
        "cell",
        *BOARD[2:],
        "finished",
    ),
]

_TEXT_OR_MISSING = (
    "interval_note",
    "reason",
    "weights",
    "schedule",
    "leak",
    "badge",
)  # one type, however many rows have none


_SAME = [*BOARD, *CELL_NAMES, "cell"]  # of all runs of a cell
_ALSO_SAME = ["ranked", "selected_on_test", "label_note", "weights", "leak", "badge"]
_TUNING = {
    "val_miou_tuned": "tuned_val_miou",
    "val_miou_default": "default_val_miou",
    "trials": "trials",
    "schedule": "schedule",
}
_HELD_OUT = ("heldout_miou", "heldout_miou_constant")
_USED = [
    *_SAME,
    *_ALSO_SAME,
    *_HELD_OUT,
    *_TUNING.values(),
    "miou",
    "weighted_f",
    "status",
    "reason",
    "replicates",
    "finished",
    "train_s",
    "score_s",
]


def _cell_row(runs: Sequence[Run]) -> dict[str, Any]:
    ok = [run for run in runs if run["status"] == "ok"]
    row = {name: runs[0][name] for name in (*_SAME, *_ALSO_SAME)}
    row |= {"badge": next((run["badge"] for run in runs if pd.notna(run["badge"])), None)}
    row |= {"n": len(ok)} | {name: max(run[name] for run in runs) for name in ("replicates", "finished")}
    for metric in ("miou", "weighted_f"):
        values = [float(run[metric]) for run in ok]
        interval = stats.t_interval(values)
        row |= {
            metric: stats.mean(values) if values else None,
            f"{metric}_low": interval.low,
            f"{metric}_high": interval.high,
        }
        row |= {"interval_note": interval.why_not} if metric == "miou" else {}
    for name in _HELD_OUT:
        values = [float(run[name]) for run in ok if pd.notna(run[name])]
        row |= {name: stats.mean(values) if values else None}
    row |= {"run_s": stats.mean([run["train_s"] + run["score_s"] for run in ok]) if ok else None}
    row |= {name: ok[0][column] if ok else None for name, column in _TUNING.items()}
    return row | _cell_status(runs, row["n"], row["replicates"])


def _cell_status(runs: Sequence[Run], n: int, wanted: int) -> dict[str, str | None]:
    others = [run for run in runs if run["status"] != "ok"]
    if n and others:
        counted = Counter(run["status"] for run in others).most_common()
        counts = ", ".join(f"{count} {status}" for status, count in counted)
        return {"status": "partial", "reason": f"{counts} of {wanted}: {others[0]['reason']}"}
    if others:
        return {"status": others[0]["status"], "reason": others[0]["reason"]}
    if n < wanted:
        return {"status": "incomplete", "reason": f"{n} of {wanted} replicates so far"}
    return {"status": "ok", "reason": None}


def _mark_stale(cells: pd.DataFrame) -> pd.DataFrame:
    """Marks cells that a newer identity of the same name has replaced. What measured nothing replaces nothing."""
    by_age = cells.assign(measured=cells["n"] > 0).sort_values(["measured", "finished"], kind="stable")
    current = by_age.groupby([*BOARD, *CELL_NAMES])["cell"].transform("last")
    old = by_age.index[by_age["cell"] != current]
    cells.loc[old, "status"] = "stale"
    cells.loc[old, "reason"] = "its inputs have changed since; another identity of this cell stands beside it"
    return cells


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
