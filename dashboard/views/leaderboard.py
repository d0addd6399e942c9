"""Tiers of sources, and all cells with intervals, gains and run times."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.filters import Chosen, family, is_control
from dashboard.store_cache import protocol_of
from dashboard.widgets import figure, held_equal, lines, plain, table
from results import charts
from results.board import constant_note
from results.board_choice import UnanswerableError
from results.cell_intervals import INTERVALS_NOTE, with_intervals
from results.class_scores import CLASS_SCORES, class_means, evidence_needed
from results.compare import CLASS_COLUMNS
from results.escape import unique, without_paths
from results.further import column_of, further_of
from results.marks import marks
from results.reference import paper
from results.replicate_scores import METRICS, samples
from results.source_notes import STATED, source_notes
from results.tiers import tier_notes, tier_table, tiers
from results.tuned_against_default import TUNED_NOTE
from results.tuning_gain import NO_GAIN, gain_notes, gain_text

FEW = 5  # up to so many reasons are shown expanded
MOST_EVIDENCE = 2000  # files of evidence read for one page; a thousand take seconds
MOST_SOURCES = 60  # comparing all pairs of more sources takes seconds


def show(chosen: Chosen) -> None:
    """Draw the page."""
    st.title("Which pretraining source is best?")
    first = chosen.whole.iloc[0]
    held_equal(protocol_of(chosen.contents, first), str(first["label_note"]))
    if chosen.cells.empty:
        st.info("No cells match these filters.")
        return
    _tiers(chosen)
    st.subheader("All cells")
    names = {
        "cell": None,
        "miou_95": "mIoU 95 %",
        "miou_images_95": "mIoU 95 % images",
        "miou_both_95": "mIoU 95 % both",
        "weighted_f_95": "weighted F 95 %",
        "miou": "mIoU",
        "weighted_f": "weighted F",
        "run_s": "seconds per run",
    }
    cells = with_intervals(chosen.cells, chosen.runs)
    rows = cell_rows(chosen, cells)
    table(rows, "cells", {name: title for name, title in names.items() if name in rows}, download=cells)
    images = [INTERVALS_NOTE + "."] if cells["miou_both_low"].notna().any() else []
    st.caption(plain(*images, *cells["images_note"].dropna().unique()))
    if (note := constant_note(chosen.whole)) is not None:
        st.caption(plain(note))
    notes = gain_notes(chosen.whole_cells.to_dict("records"))
    notes += [TUNED_NOTE] if "tuned_minus_default" in chosen.cells else []
    if notes:
        st.caption(plain(*(f"{note}." for note in notes)))
    cells = chosen.cells.assign(why=chosen.cells["leak"].fillna(chosen.cells["reason"])).dropna(subset="why")
    is_ranked = cells["rank"].notna()
    if is_ranked.any():
        lines(_remarks(cells[is_ranked]))
    unranked = cells[~is_ranked]
    if len(unranked):
        with st.expander(f"Why {len(unranked)} cells are not ranked", expanded=len(unranked) <= FEW):
            lines(_remarks(unranked))
    if "imagenet" in set(chosen.cells["source"].map(family)):
        st.caption(
            "All ImageNet runs share one checkpoint: the results hold for these weights, not for ImageNet pretraining in general."
        )
    with st.expander("Licences, and what sources have seen"):
        table(source_notes(chosen.whole), "sources", {"has_seen": "has seen"})
        st.caption(STATED)
    _classes(chosen)
    _paper()


def _remarks(cells: pd.DataFrame) -> "pd.Series[str]":
    return cells["source"] + " × " + cells["backbone"] + ": " + cells["why"]


def _tiers(chosen: Chosen) -> None:
    """Draw tiers among all sources of the board: they depend on the set of sources, so source filters do not apply."""
    runs, cells = chosen.of_backbones(chosen.whole), chosen.of_backbones(chosen.whole_cells)
    if cells["source"].nunique() > MOST_SOURCES:
        st.caption(f"Tiers are shown for up to {MOST_SOURCES} sources; use `bench table --tiers` for larger boards.")
        return
    data = samples(runs, chosen.metric, cells)
    if not data.scores:
        return
    st.subheader("Tiers")
    rows = tiers(data)
    shown = tier_table(data, rows, METRICS[chosen.metric])
    shown = shown[shown["source"].isin(chosen.cells["source"])]
    table(shown, "tiers")
    about = [f"{data.about[name]}." for name in shown["source"] if name in data.about]
    st.caption(plain(*tier_notes(data, rows), "Tiers are computed among all sources of the board.", *about))
    figure(charts.tiers_chart(data, METRICS[chosen.metric], rows["source"]), "tiers")


def badges(cell: Mapping[Hashable, Any]) -> list[str]:
    """Return the badges of a board row."""
    names = ["measured"] if cell["n"] and pd.isna(cell["badge"]) else []
    names += ["control"] if is_control(cell["source"]) else []
    return [*names, *marks(cell), *([cell["status"]] if cell["status"] != "ok" else [])]


def cell_rows(chosen: Chosen, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the table of cells; column `cell` is hidden. cells: those chosen, `with_intervals`."""
    shown = {name: cells[name] for name in ("rank", "source")}
    shown |= {"badges": pd.Series(list(map(badges, cells.to_dict("records"))), index=cells.index)}
    shown |= {"backbone": cells["backbone"]}
    for metric in METRICS:
        shown |= {metric: cells[metric], f"{metric}_95": _spans(cells, metric)}
        kinds = [f"{metric}_{kind}" for kind in ("images", "both") if f"{metric}_{kind}_low" in cells]
        shown |= {f"{kind}_95": _spans(cells, kind) for kind in kinds if cells[f"{kind}_low"].notna().any()}
    further = further_of(chosen.whole_cells.dropna(axis="columns", how="all").columns)
    shown |= {f"mIoU {name}": cells[column_of(name)] for name in further}
    shown |= _tuning(cells)
    shown |= {f"gain over {source}": gain(chosen, source) for source in ("none", "imagenet")}
    shown |= {name: cells[name] for name in ("n", "trials", "run_s", "cell")}
    return pd.DataFrame(shown).reset_index(drop=True)


def _spans(cells: pd.DataFrame, of: str) -> "pd.Series[str]":
    """Return each interval as text. of: what the columns with its ends begin with."""
    ends = zip(cells[f"{of}_low"], cells[f"{of}_high"], strict=True)
    return pd.Series([f"{a:.3f} – {b:.3f}" if pd.notna(a) else "" for a, b in ends], index=cells.index)


def _tuning(cells: pd.DataFrame) -> "dict[str, pd.Series[Any]]":
    """Return columns on what tuning gained: on val, or with the default schedule how the tuned runs differ on test."""
    if "tuned_minus_default" in cells:
        names = {"tuned - default": "", "tuned - default, low": "_low", "tuned - default, high": "_high"}
        return {name: cells[f"tuned_minus_default{end}"] for name, end in names.items()}
    rows = cells[["trials", "tuning_gain", "tuning_gain_se"]].itertuples(index=False, name=None)
    texts = [
        gain_text(*row).lstrip("+").removeprefix(NO_GAIN) for row in rows
    ]  # a cell that begins with + is a formula
    return {"gain of tuning": pd.Series(texts, index=cells.index, dtype="str")}


def gain(chosen: Chosen, over: str) -> "pd.Series[float]":
    """Return (cells,) gains over a baseline on the same backbone, in the chosen metric; missing without a baseline."""
    whole = chosen.whole_cells
    clean = (whole["status"] == "ok") & whole["leak"].isna()
    base = whole[clean & (whole["source"] == over)].set_index("backbone")[chosen.metric]
    return chosen.cells[chosen.metric] - chosen.cells["backbone"].map(base)


def _classes(chosen: Chosen) -> None:
    """Draw a table for each chosen score of the classes, if they are switched on."""
    st.subheader("Classes")
    if not st.toggle("Show all classes", key="classes", bind="query-params"):
        return
    [of_metric] = [name for name, score in CLASS_SCORES.items() if score.column == CLASS_COLUMNS[chosen.metric]]
    names = st.multiselect(
        "Scores of each class",
        list(CLASS_SCORES),
        format_func=lambda name: CLASS_SCORES[name].title,
        key="scores",
        bind="query-params",
        placeholder=CLASS_SCORES[of_metric].title,
    )
    names = names or [of_metric]
    if (older := evidence_needed(chosen.runs, names)) > MOST_EVIDENCE:
        st.info(
            f"{older:,} runs are older than these scores: use the filters, or `bench table --columns {','.join(names)}`"
        )
        return
    for name in names:
        try:
            means = class_means(chosen.runs, chosen.cells, name)
        except UnanswerableError as error:
            st.info(plain(str(error)))
            return
        st.caption(plain(f"{CLASS_SCORES[name].title}: {CLASS_SCORES[name].note}"))
        rows = class_rows(chosen.cells, means.values)
        marked = [" · ".join([str(cell["source"]), *marks(cell)]) for cell in chosen.cells.to_dict("records")]
        table(rows.assign(source=marked), f"classes-{name}", {"cell": None}, download=rows, pinned=("source",))
        if means.unread:
            lines(without_paths(text, chosen.contents.store.root) for text in means.unread)


def class_rows(cells: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of the classes (cells, K) beside what identifies a cell."""
    which = cells[["source", "backbone", "cell"]]
    return pd.concat([which, values.set_axis(unique(values.columns, which.columns), axis=1)], axis=1).reset_index(
        drop=True
    )


def _paper() -> None:
    title, rows = paper()
    st.subheader("Printed in the paper, not measured here")
    st.caption(plain(title))
    st.dataframe(pd.DataFrame(rows), hide_index=True)
