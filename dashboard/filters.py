"""The filters beside every page. Their values live in the address, so that a link shows the same."""

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard.store_cache import StoreContents
from results.board import BOARD
from results.escape import for_terminal, unique
from results.replicate_scores import METRICS


@dataclass(frozen=True)
class Chosen:
    """What the filters leave of one board.

    Attributes:
        whole, whole_cells: the rows of the board for the chosen share of labels, whatever source and backbone. every: the runs
            of all shares.
        runs, cells: what is left of it by source, family and backbone.
    """

    found: StoreContents
    metric: str
    every: pd.DataFrame
    whole: pd.DataFrame
    whole_cells: pd.DataFrame
    runs: pd.DataFrame
    cells: pd.DataFrame
    backbones: tuple[str, ...] = ()

    def of_backbones(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows on the chosen backbones; all of them where none was chosen."""
        return rows[rows["backbone"].isin(self.backbones)] if self.backbones else rows


def family(source: str) -> str:
    """What kind of source a name is: satir of satir/top-4~shuffled."""
    return source.split("~")[0].split("/")[0]


def is_control(source: str) -> bool:
    """Whether it stands there to say why another source works."""
    return "~" in source or source == "none/long"


def choose(found: StoreContents) -> Chosen:
    """Draws the filters and returns what they leave."""
    with st.sidebar:
        boards = _boards(found.cells)
        name = st.selectbox("Board", list(boards), key="board", bind="query-params", help="Target and protocol.")
        metric = st.segmented_control(
            "Metric", list(METRICS), default="miou", format_func=METRICS.__getitem__, key="metric", bind="query-params"
        )
        cells = found.cells[_same(found.cells, boards[name])]
        shares = sorted(cells["train_frac"].unique(), reverse=True)
        share = st.selectbox(
            "Share of the labels", shares, format_func=lambda v: f"{v:.0%}", key="labels", bind="query-params"
        )
        st.caption("For the leaderboard, the matrix and the runs:")
        backbones = _any_of("Backbone", cells["backbone"], "backbone")
        families = _any_of("Source family", cells["source"].map(family), "family")
        search = st.text_input("Source contains", key="search", bind="query-params")
    every = found.runs[_same(found.runs, boards[name])]
    whole = every[every["train_frac"] == share]
    cells = cells[cells["train_frac"] == share]

    def left(rows: pd.DataFrame) -> pd.DataFrame:
        kept = pd.Series(True, index=rows.index)
        kept &= rows["backbone"].isin(backbones) if backbones else True
        kept &= rows["source"].map(family).isin(families) if families else True
        kept &= rows["source"].str.contains(search, case=False, regex=False) if search else True
        return rows[kept]

    return Chosen(found, metric or "miou", every, whole, cells, left(whole), left(cells), tuple(backbones))


def _boards(cells: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Name -> identity, the newest first, those after them that only bundles speak of: anybody can write a time.

    Hashes stand in the name where target and protocol alone do not tell them apart.
    """
    by_board = cells.assign(here=cells["badge"].isna()).groupby(BOARD)
    newest = by_board.agg({"here": "any", "finished": "max"}).sort_values(["here", "finished"], ascending=False)
    several = pd.Series([key[:2] for key in newest.index]).value_counts()
    names = []
    for target, protocol, data, settings, version in newest.index:
        more = f" ({data[:6]}, {settings[:6]}, {version})" if several[(target, protocol)] > 1 else ""
        names.append(for_terminal(f"{target} · {protocol}{more}"))
    return dict(zip(unique(names), newest.index, strict=True))


def _same(rows: pd.DataFrame, identity: tuple[str, ...]) -> "pd.Series[bool]":
    same = pd.Series(True, index=rows.index)
    for column, value in zip(BOARD, identity, strict=True):
        same &= rows[column] == value
    return same


def _any_of(label: str, values: pd.Series, key: str) -> list[str]:
    names = sorted(values.unique())
    return st.multiselect(label, names, format_func=for_terminal, key=key, bind="query-params", placeholder="all")
