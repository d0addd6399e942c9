"""Sidebar filters, shared by all pages. Their values are part of the URL, so that links can be shared."""

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard import store_cache
from dashboard.store_cache import StoreContents
from results.board_choice import schedules_of
from results.escape import for_terminal, unique
from results.further import splits_of
from results.record import TEST
from results.replicate_scores import METRICS
from results.schedule_names import TUNED
from results.tuned_against_default import PLACE


@dataclass(frozen=True)
class Chosen:
    """The filtered rows of one board.

    Attributes:
        every: runs of the board for all shares of labels. whole, whole_cells: rows for the chosen share, unfiltered.
        runs, cells: rows for the chosen share, filtered by source, family and backbone.
    """

    contents: StoreContents
    metric: str
    every: pd.DataFrame
    whole: pd.DataFrame
    whole_cells: pd.DataFrame
    runs: pd.DataFrame
    cells: pd.DataFrame
    backbones: tuple[str, ...] = ()

    def of_backbones(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows on the chosen backbones; all rows if none is chosen."""
        return rows[rows["backbone"].isin(self.backbones)] if self.backbones else rows


def family(source: str) -> str:
    """Return the family of a source: satir for satir/top-4~shuffled."""
    return source.split("~")[0].split("/")[0]


def is_control(source: str) -> bool:
    """Return whether the source is a control for another source."""
    return "~" in source or source == "none/long"


def choose(contents: StoreContents) -> Chosen:
    """Draw the filters and return the filtered rows."""
    with st.sidebar:
        boards = _boards(contents.cells)
        name = st.selectbox(
            "Board",
            list(boards),
            key="board",
            bind="query-params",
            help="Target and protocol; the board with most complete cells is first.",
        )
        metric = st.segmented_control(
            "Metric", list(METRICS), default="miou", format_func=METRICS.__getitem__, key="metric", bind="query-params"
        )
        contents = store_cache.on(contents, *_split_and_schedule(contents.runs[_same(contents.runs, boards[name])]))
        cells = contents.cells[_same(contents.cells, boards[name])]
        shares = sorted(cells["train_frac"].unique(), reverse=True)
        share = st.selectbox(
            "Share of the labels", shares, format_func=lambda v: f"{v:.0%}", key="labels", bind="query-params"
        )
        st.caption("These filters apply to Leaderboard, Matrix and Run:")
        backbones = _any_of("Backbone", cells["backbone"], "backbone")
        families = _any_of("Source family", cells["source"].map(family), "family")
        search = st.text_input("Source contains", key="search", bind="query-params")
    every = contents.runs[_same(contents.runs, boards[name])]
    whole = every[every["train_frac"] == share]
    cells = cells[cells["train_frac"] == share]

    def filtered(rows: pd.DataFrame) -> pd.DataFrame:
        kept = pd.Series(True, index=rows.index)
        kept &= rows["backbone"].isin(backbones) if backbones else True
        kept &= rows["source"].map(family).isin(families) if families else True
        kept &= rows["source"].str.contains(search, case=False, regex=False) if search else True
        return rows[kept]

    return Chosen(contents, metric or "miou", every, whole, cells, filtered(whole), filtered(cells), tuple(backbones))


def _split_and_schedule(runs: pd.DataFrame) -> tuple[str, str]:
    """Draw a box for the schedule and one for the test split, each only where the runs of a board leave a choice."""
    kinds, kind, split = schedules_of(runs), str(TUNED), TEST
    if kinds != [TUNED]:
        kind = st.selectbox(
            "Schedule",
            kinds,
            key="schedule",
            bind="query-params",
            help="tuned: chosen for each cell on the validation split. default: the protocol's own, the same for all cells.",
        )
    splits = splits_of(runs[runs["schedule_kind"] == kind])
    if len(splits) > 1:
        split = st.selectbox(
            "Test split",
            splits,
            key="test",
            bind="query-params",
            help="The same runs, scored on further images: another place or another camera.",
        )
    return split, kind


def _boards(cells: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return name -> PLACE: most complete cells first, then newest. Boards with only submissions are last: they are not trusted.

    Names contain hashes if target and protocol are ambiguous.
    """
    own = cells["badge"].isna()
    by_board = cells.assign(own=own, complete=own & (cells["status"] == "ok")).groupby(PLACE)
    order = ["own", "complete", "finished"]
    found = by_board.agg({"own": "any", "complete": "sum", "finished": "max"}).sort_values(order, ascending=False)
    several = pd.Series([key[:2] for key in found.index]).value_counts()
    names = []
    for target, protocol, data, settings, version in found.index:
        more = f" ({data[:6]}, {settings[:6]}, {version})" if several[(target, protocol)] > 1 else ""
        names.append(for_terminal(f"{target} · {protocol}{more}"))
    return dict(zip(unique(names), found.index, strict=True))


def _same(rows: pd.DataFrame, identity: tuple[str, ...]) -> "pd.Series[bool]":
    same = pd.Series(True, index=rows.index)
    for column, value in zip(PLACE, identity, strict=True):
        same &= rows[column] == value
    return same


def _any_of(label: str, values: pd.Series, key: str) -> list[str]:
    names = sorted(values.unique())
    return st.multiselect(label, names, format_func=for_terminal, key=key, bind="query-params", placeholder="all")
