"""DataFrames of runs: one row per run of a store and of the submissions next to it."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from results import known_leaks
from results.board import BOARD, CELL_NAMES, Run
from results.bundle import BundleError, Submission, is_of, submissions, why
from results.escape import visible
from results.evidence_files import read_evidence
from results.record import OF_SUBMISSIONS, RunRecord, evidence_name
from results.record_files import Unreadable, run_folders
from results.store import Store, StoreError
from results.table_cache import cached_runs


def runs_frame(store: Store) -> pd.DataFrame:
    """Return one row per run of the store and of the submissions next to it, with the columns of results/COLUMNS.md.

    Records and bundles that are left out are listed in `.attrs["unreadable"]`.
    """
    own = own_runs(store)
    bundles, bad = submissions(store.root)
    bad = [*own.attrs["unreadable"], *bad]
    known, parts = _Shown(), [own]
    shown: list[Submission] = []
    known.add(own if bundles else own[:0])
    for one in bundles:
        try:
            submitted = _submitted(store, one, known)
        except Exception as error:  # untrusted input: one bundle must not break the board
            bad.append(f"{one.folder}: {why(error)}")
            continue
        known.add(submitted)
        bad += submitted.attrs["unreadable"]
        parts, shown = [*parts, submitted], [*shown, one]
    whole = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    whole = whole.astype(dict.fromkeys(OF_SUBMISSIONS, "str"))
    leaks = known_leaks.read([(store, None), *((Store(one.runs), one.name) for one in shown)])
    bad += [f"{path}: leak finding cannot be read; run `bench leaks` again" for path in leaks.unreadable]
    whole.attrs |= {"unreadable": [visible(line) for line in bad], "root": str(store.root), "known_leaks": leaks}
    return whole


@dataclass
class _Shown:
    """Cells shown so far, and the properties that all runs of a board share."""

    cells: set[str] = field(default_factory=set)
    boards: dict[tuple[str, ...], tuple[object, ...]] = field(default_factory=dict)

    def add(self, runs: pd.DataFrame) -> None:
        """Add the cells and boards of these runs."""
        self.cells |= set(_named_cells(runs))
        for run in runs.drop_duplicates(BOARD).to_dict("records"):
            self.boards.setdefault(_board_of(run), _shared(run))

    def accepts(self, run: Run) -> bool:
        """Return whether the run agrees with its board, or starts a new one."""
        return self.boards.get(_board_of(run), _shared(run)) == _shared(run)


def _board_of(run: Run) -> tuple[str, ...]:
    return tuple(str(run[name]) for name in BOARD)


def _shared(run: Run) -> tuple[object, ...]:
    return tuple(run["classes"]), bool(run["ranked"]), bool(run["selected_on_test"]), str(run["transfer"])


def _submitted(store: Store, one: Submission, known: _Shown) -> pd.DataFrame:
    """Return the runs of a bundle on its own source, without cells that are already shown.

    Raises:
        BundleError: the runs differ from their board in properties that all its runs share.
    """
    bundled = Store(one.runs, cache=store.cache_file(f"submission-{one.folder.name}"))
    runs = cached_runs(bundled, run_folders(bundled), _with_evidence).assign(submission=one.name, badge=one.badge)
    own = np.array([is_of(source, one.name) for source in runs["source"]], dtype=bool)
    runs = runs[own & ~_named_cells(runs).isin(known.cells).to_numpy()]
    merged = _Shown(boards=dict(known.boards))
    merged.add(runs)
    if not all(map(merged.accepts, runs.to_dict("records"))):
        raise BundleError(
            "its runs differ from the other runs of their board in `classes`, `ranked`, `selected_on_test` or `transfer`"
        )
    return runs


def own_runs(store: Store) -> pd.DataFrame:
    """Return the runs of this store without submissions."""
    runs = cached_runs(store, run_folders(store))
    return runs.assign(submission=None, badge=None).astype(dict.fromkeys(OF_SUBMISSIONS, "str"))


def _named_cells(runs: pd.DataFrame) -> "pd.Series[str]":
    """Return the cell of each run as text."""
    return runs[[*BOARD, *CELL_NAMES]].astype(str).agg(" ".join, axis=1) if len(runs) else pd.Series([], dtype="str")


def _with_evidence(store: Store, record: RunRecord) -> RunRecord | Unreadable:
    """Return a submitted record if its evidence is readable and matches its classes; views rely on that."""
    for split in record.by_split:
        path = store.folder_of(record) / evidence_name(split)
        try:
            shape = read_evidence(store, record, split).confusion.shape
        except StoreError as error:
            return Unreadable(path, str(error))
        if not shape[0] or shape[1] != len(record.classes):
            return Unreadable(path, f"has {shape[0]} images and {shape[1]} classes, not {len(record.classes)}")
    return record
