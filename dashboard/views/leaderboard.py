"""Sources in tiers, and every cell with its intervals, gains, budget and cost."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.filters import Chosen, family, is_control
from dashboard.store_cache import protocol_of
from dashboard.widgets import figure, held_equal, lines, plain, table
from results import charts
from results.board import constant_note
from results.board_choice import UnanswerableError
from results.compare import CLASS_COLUMNS, classes_of
from results.escape import unique
from results.marks import marks
from results.reference import paper
from results.replicate_scores import METRICS, samples
from results.tiers import tier_notes, tiers

FEW = 5  # reasons that are shown without being asked for
MOST_SOURCES = 60  # beyond these, all pairs take seconds and nobody reads the tiers


def show(chosen: Chosen) -> None:
    """The page."""
    st.title("Which pretraining source is best?")
    first = chosen.whole.iloc[0]
    held_equal(protocol_of(chosen.found, first), str(first["label_note"]))
    if chosen.cells.empty:
        st.info("No cell is left by these filters.")
        return
    _tiers(chosen)
    st.subheader("Every cell")
    classes = st.toggle("Every class", key="classes", bind="query-params")
    rows = cell_rows(chosen)
    extra = class_columns(chosen, rows["cell"], rows.columns) if classes else pd.DataFrame(index=rows.index)
    names = {
        "cell": None,
        "miou_95": "mIoU 95 %",
        "weighted_f_95": "weighted F 95 %",
        "miou": "mIoU",
        "weighted_f": "weighted F",
        "run_s": "seconds a run",
    }
    table(pd.concat([rows, extra], axis=1), "cells", names, download=chosen.cells)
    if (floor := constant_note(chosen.whole)) is not None:
        st.caption(plain(floor))
    why = chosen.cells["leak"].fillna(chosen.cells["reason"])
    unranked = chosen.cells.assign(why=why)[why.notna()]
    if len(unranked):
        with st.expander(f"Why {len(unranked)} cells have no rank", expanded=len(unranked) <= FEW):
            told = unranked["source"] + " × " + unranked["backbone"] + ": " + unranked["why"]
            lines(told)
    if "imagenet" in set(chosen.cells["source"].map(family)):
        st.caption(
            "ImageNet weights are one draw: what is said of them holds for these weights, not for any such pretraining."
        )
    _paper()


def _tiers(chosen: Chosen) -> None:
    """Tiers among all sources of the board, whatever the filters leave of them: they would be others among fewer."""
    runs, cells = chosen.of_backbones(chosen.whole), chosen.of_backbones(chosen.whole_cells)
    if cells["source"].nunique() > MOST_SOURCES:
        st.caption(
            f"Tiers are drawn on boards of up to {MOST_SOURCES} sources; `bench table --tiers` has no such limit."
        )
        return
    found = samples(runs, chosen.metric, cells)
    if not found.scores:
        return
    st.subheader("Tiers")
    rows = tiers(found)
    shown = rows[rows["source"].isin(chosen.cells["source"])]
    names = {"mean": f"mean {METRICS[chosen.metric]}", "n": "replicates", "beaten_by": "established better"}
    table(shown.rename(columns=names).drop(columns="untested"), "tiers")
    about = [f"{found.about[name]}." for name in shown["source"] if name in found.about]
    st.caption(plain(*tier_notes(found, rows), "Among all sources of the board.", *about))
    figure(charts.tiers_chart(found, METRICS[chosen.metric]), "tiers")


def badges(cell: Mapping[Hashable, Any]) -> list[str]:
    """What a reader must know of a row of the board before its number."""
    told = ["measured"] if cell["n"] and pd.isna(cell["badge"]) else []
    told += ["control"] if is_control(cell["source"]) else []
    return [*told, *marks(cell), *([cell["status"]] if cell["status"] != "ok" else [])]


def cell_rows(chosen: Chosen) -> pd.DataFrame:
    """The cells as they are shown; `cell` is hidden."""
    cells = chosen.cells
    shown = {name: cells[name] for name in ("rank", "source")}
    shown |= {"badges": pd.Series(list(map(badges, cells.to_dict("records"))), index=cells.index)}
    shown |= {"backbone": cells["backbone"]}
    for metric in METRICS:
        low, high = cells[f"{metric}_low"], cells[f"{metric}_high"]
        spans = [f"{a:.3f} – {b:.3f}" if pd.notna(a) else "" for a, b in zip(low, high, strict=True)]
        shown |= {metric: cells[metric], f"{metric}_95": pd.Series(spans, index=cells.index)}
    shown |= {f"gain over {source}": gain(chosen, source) for source in ("none", "imagenet")}
    shown |= {name: cells[name] for name in ("n", "trials", "run_s", "cell")}
    return pd.DataFrame(shown).reset_index(drop=True)


def gain(chosen: Chosen, over: str) -> "pd.Series[float]":
    """(cells,) how far each is ahead of a baseline on its own backbone, by the chosen metric; missing without one."""
    whole = chosen.whole_cells
    clean = (whole["status"] == "ok") & whole["leak"].isna()
    base = whole[clean & (whole["source"] == over)].set_index("backbone")[chosen.metric]
    return chosen.cells[chosen.metric] - chosen.cells["backbone"].map(base)


def class_columns(chosen: Chosen, cells: "pd.Series[str]", taken: Iterable[str] = ()) -> pd.DataFrame:
    """(cells, K) mean of each class over the replicates. taken: names of columns that are there already."""
    try:
        names = unique(classes_of(chosen.whole), taken)
    except UnanswerableError as error:
        st.info(plain(str(error)))
        return pd.DataFrame(index=cells.index)
    ok = chosen.runs[chosen.runs["status"] == "ok"]
    values = pd.DataFrame(ok[CLASS_COLUMNS[chosen.metric]].tolist(), index=ok["cell"], columns=names, dtype="float64")
    return values.groupby(level=0).mean().reindex(cells).reset_index(drop=True)


def _paper() -> None:
    title, rows = paper()
    st.subheader("Printed in the paper, not measured here")
    st.caption(plain(title))
    st.dataframe(pd.DataFrame(rows), hide_index=True)
