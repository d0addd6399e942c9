"""Contents of the store, cached for all sessions and read again when the store changes."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

import results
from results.board import board
from results.board_choice import on_schedule
from results.bundle import submissions
from results.further import on_split, with_further
from results.record import TEST
from results.record_files import record_of_row, run_folders
from results.schedule_names import DEFAULT, TUNED
from results.store import Store, StoreError
from results.table import runs_frame
from results.tuned_against_default import with_tuned

SHIPPED = Path(results.__file__).parent / "runs"
CHECK_EVERY_S = 10.0  # interval between checks for changes


class NothingToShowError(Exception):
    """There is no store to show; the message says why and what to do."""


@dataclass(frozen=True)
class StoreContents:
    """Contents of a store, scored on one test split. runs: one row per run. cells: one row per cell, as in `bench table`."""

    store: Store
    stamp: str
    runs: pd.DataFrame
    cells: pd.DataFrame
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]


def read() -> StoreContents:
    """Read the store of `bench dashboard`, or the results that ship with the project if it does not exist.

    Raises:
        NothingToShowError: the path of the store is a file, or no results ship.
    """
    root = Path(os.environ.get("BENCH_STORE", "bench-store"))
    notes: tuple[str, ...] = ()
    if not root.exists():
        notes = (f"There is no store at {root} yet. These are the results that ship with the project.",)
        root = SHIPPED
    try:
        return _read(str(root), _latest(str(root)).stamp, notes)
    except StoreError as error:
        raise NothingToShowError(str(error)) from error


@dataclass
class _Check:
    """Last check of a store for changes: fingerprint, time and duration."""

    store: Store
    stamp: str = ""
    at: float = 0.0
    took_s: float = 0.0

    def repeat(self) -> None:
        """Check again."""
        began = time.monotonic()
        bundles, left_out = submissions(self.store.root)
        shown = [(one.name, one.badge, one.listing.files) for one in bundles]
        self.stamp = hashlib.sha256(json.dumps([run_folders(self.store), shown, left_out]).encode()).hexdigest()
        self.at, self.took_s = time.monotonic(), time.monotonic() - began

    @property
    def is_old(self) -> bool:
        """Whether another check is due; large stores are checked less often."""
        return time.monotonic() - self.at > max(CHECK_EVERY_S, 20 * self.took_s)


@st.cache_resource(show_spinner=False)
def _latest(root: str) -> _Check:
    """Return the last check of a store. Only `watch` repeats it, so that pages do not wait."""
    check = _Check(_store(root))
    check.repeat()
    return check


@st.cache_resource(show_spinner="Reading records", max_entries=2)
def _read(root: str, stamp: str, notes: tuple[str, ...]) -> StoreContents:
    store = _store(root)
    runs = runs_frame(store)
    cells = with_further(board(runs), runs)
    return StoreContents(store, stamp, runs, cells, tuple(runs.attrs.get("unreadable", ())), notes)


def on(contents: StoreContents, split: str, schedule: str) -> StoreContents:
    """Return the contents with the scores on a test split, of the runs with the tuned or with the default schedule."""
    if split == TEST and (contents.runs["schedule_kind"] == TUNED).all():
        return contents
    return _on(str(contents.store.root), contents.stamp, contents.notes, split, schedule)


@st.cache_resource(show_spinner=False, max_entries=8)
def _on(root: str, stamp: str, notes: tuple[str, ...], split: str, schedule: str) -> StoreContents:
    whole = _read(root, stamp, notes)
    both = on_split(whole.runs, split)
    runs = on_schedule(both, schedule)
    cells = with_further(board(runs), runs) if split == TEST else board(runs)
    return replace(whole, runs=runs, cells=with_tuned(cells, both) if schedule == DEFAULT else cells)


def _store(root: str) -> Store:
    """Open a store, without a cache for the results that ship."""
    return Store(root, cache=Path(os.devnull) if Path(root) == SHIPPED else None)


def protocol_of(contents: StoreContents, row: "pd.Series[Any]") -> Mapping[str, Any]:
    """Return the protocol settings of a run, from its record."""
    record = record_of_row(contents.store, row.to_dict())
    protocol = record.settings.get("protocol") if record is not None else None
    return protocol if isinstance(protocol, Mapping) else {}


@st.fragment(run_every=CHECK_EVERY_S)
def watch(contents: StoreContents) -> None:
    """Check the store regularly and redraw the page when it has changed."""
    check = _latest(str(contents.store.root))
    if check.is_old:
        try:
            check.repeat()
        except StoreError:  # the store is gone: the redrawn page shows the error or the shipped results
            check.stamp = ""
            _latest.clear()
    if check.stamp != contents.stamp:
        st.rerun()
