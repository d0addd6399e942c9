"""DataFrames of runs: one row a run of a store and of the submissions beside it."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from results import known_leaks
from results.board import BOARD, CELL_NAMES, Run
from results.bundle import BundleError, Submission, is_of, submissions, why
from results.escape import visible
from results.evidence_files import read_evidence
from results.record import OF_SUBMISSIONS, RunRecord
from results.record_files import Unreadable, run_folders
from results.store import Store, StoreError
from results.table_cache import cached_runs


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
    runs = cached_runs(held, run_folders(held), _with_evidence).assign(submission=one.name, badge=one.badge)
    own = np.array([is_of(source, one.name) for source in runs["source"]], dtype=bool)
    runs = runs[own & ~_named_cells(runs).isin(known.cells).to_numpy()]
    alike = _Shown(boards=dict(known.boards))
    alike.add(runs)
    if not all(map(alike.has_room_for, runs.to_dict("records"))):
        raise BundleError("its runs differ from the other runs of their board in classes, or in whether it is ranked")
    return runs


def own_runs(store: Store) -> pd.DataFrame:
    """The runs of this store alone, without the submissions beside it."""
    found = cached_runs(store, run_folders(store))
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
        shape = read_evidence(store, record).confusion.shape
    except StoreError as error:
        return Unreadable(path, str(error))
    good = shape[0] and shape[1] == len(record.classes)
    return record if good else Unreadable(path, f"it is of {shape[0]} images and {shape[1]} classes")
