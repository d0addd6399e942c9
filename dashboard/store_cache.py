"""What a store holds, read once for all who look, and read again when it has changed."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

import results
from results.board import board
from results.bundle import submissions
from results.record_files import record_of_row, run_folders
from results.store import Store, StoreError
from results.table import runs_frame

SHIPPED = Path(results.__file__).parent / "runs"
LOOK_AGAIN_S = 10.0  # whether records were added


class NothingToShowError(Exception):
    """There is no store and nothing ships; the message says what to do."""


@dataclass(frozen=True)
class StoreContents:
    """What a store holds. runs: a row a run. cells: a row a cell, as `bench table` shows it."""

    store: Store
    stamp: str
    runs: pd.DataFrame
    cells: pd.DataFrame
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]


def read() -> StoreContents:
    """The store that `bench dashboard` was given; what ships with the project where there is none.

    Raises:
        NothingToShowError: the store's path is a file, or nothing ships.
    """
    root = Path(os.environ.get("BENCH_STORE", "bench-store"))
    notes: tuple[str, ...] = ()
    if not root.exists():
        notes = (f"There is no store at {root} yet: these are the results that ship with the project.",)
        root = SHIPPED
    try:
        return _read(str(root), _latest(str(root)).stamp, notes)
    except StoreError as error:
        raise NothingToShowError(str(error)) from error


@dataclass
class _Look:
    """The last look at a store: what it saw, when, and how long it took."""

    store: Store
    stamp: str = ""
    at: float = 0.0
    took_s: float = 0.0

    def again(self) -> None:
        """Looks again."""
        began = time.monotonic()
        bundles, left_out = submissions(self.store.root)
        told = [(one.name, one.badge, one.listing.files) for one in bundles]
        self.stamp = hashlib.sha256(json.dumps([run_folders(self.store), told, left_out]).encode()).hexdigest()
        self.at, self.took_s = time.monotonic(), time.monotonic() - began

    @property
    def is_old(self) -> bool:
        """Whether it is time for another: a large store is not looked at all the time."""
        return time.monotonic() - self.at > max(LOOK_AGAIN_S, 20 * self.took_s)


@st.cache_resource(show_spinner=False)
def _latest(root: str) -> _Look:
    """The last look at a store. Only `watch` looks again, so that no page waits for it."""
    look = _Look(_store(root))
    look.again()
    return look


@st.cache_resource(show_spinner="Reading the records", max_entries=2)
def _read(root: str, stamp: str, notes: tuple[str, ...]) -> StoreContents:
    store = _store(root)
    runs = runs_frame(store)
    return StoreContents(store, stamp, runs, board(runs), tuple(runs.attrs.get("unreadable", ())), notes)


def _store(root: str) -> Store:
    """The store; what ships is read without leaving a cache in it."""
    return Store(root, cache=Path(os.devnull) if Path(root) == SHIPPED else None)


def protocol_of(found: StoreContents, row: "pd.Series[Any]") -> Mapping[str, Any]:
    """What the protocol of a run holds equal, from its record."""
    record = record_of_row(found.store, row.to_dict())
    told = record.settings.get("protocol") if record is not None else None
    return told if isinstance(told, Mapping) else {}


@st.fragment(run_every=LOOK_AGAIN_S)
def watch(found: StoreContents) -> None:
    """Looks at the store now and then, and shows the page again when it has changed since it was drawn."""
    look = _latest(str(found.store.root))
    if look.is_old:
        try:
            look.again()
        except StoreError:  # it is gone; the page says so, or shows what ships
            look.stamp = ""
            _latest.clear()
    if look.stamp != found.stamp:
        st.rerun()
