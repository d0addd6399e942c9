"""The page of a board: tiers, cells, costs, pairs, curves, classes, runs and the protocol."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.cli.questions import span as signed_span
from bench.cli.site.boards import Ranking, SiteBoard, pairs_of
from bench.cli.site.figures import spec
from bench.cli.site.names import Addresses
from bench.cli.site.tables import DASH, Cell, Column, Table, number, of_frame, span, text, without_empty
from bench.cli.tables import learned_text, plain_rows, reconstructed_text, source_text
from results import charts, pareto, scaling
from results.board_choice import UnanswerableError
from results.cell_cost import COSTS, DOCS
from results.class_scores import CLASS_SCORES, class_means
from results.compare import HOW, INTERVALS, POOLED, p_text
from results.further import column_of, further_of
from results.record import column_docs
from results.record_files import record_of_row
from results.replicate_scores import METRICS
from results.source_notes import STATED, source_notes
from results.store import Store
from results.tuned_against_default import difference_text
from results.tuning_gain import gain_text
from results.uncertainty import Uncertainty

CLASSES = ("iou", "weighted_f")  # scores of the classes that every record has
SAID = {"has_seen": "has seen"}
COST_AXES = ("processor_hours", "million_parameters")  # of the figures; the table has all


def board_page(store: Store, one: SiteBoard, at: Addresses) -> dict[str, Any]:
    """Return what the template of a board shows."""
    return {
        "board": one,
        "tiers": [ranking_parts(ranking, at, said=[*one.marks, *one.notes]) for ranking in one.rankings],
        "cells": cells_table(one, at),
        "costs": list(_costs(one)),
        "front": pareto.FRONT_NOTE,
        "matrix": spec(charts.matrix_chart(one.full_cells, "miou", METRICS["miou"])),
        "pairs": [(ranking.title, pairs_table(ranking, at)) for ranking in one.rankings if ranking.pairs],
        "how": " ".join(HOW.split()),
        "curves": list(_curves(one.runs)),
        "classes": list(_classes(one, at)),
        "sources": of_frame(
            "sources", source_notes(one.runs).rename(columns=SAID), {"source": _from_board(at.sources)}
        ),
        "stated": STATED,
        "runs": runs_table(one.runs, at),
        "protocol": _protocol(store, one),
    }


def _from_board(addresses: Mapping[str, str]) -> dict[str, str]:
    return {name: f"../{address}" for name, address in addresses.items()}


def ranking_parts(ranking: Ranking, at: Addresses, root: str = "../", said: Sequence[str] = ()) -> dict[str, Any]:
    """Return the tiers of a board: title, notes, table and figure. said: notes that the page has already."""
    links = {"source": {name: f"{root}{address}" for name, address in at.sources.items()}}
    return {
        "title": ranking.title,
        "head": [note for note in ranking.tiers.head[1:] if note not in said],
        "table": of_frame(f"tiers-{ranking.metric}", ranking.tiers.rows, links),
        "notes": ranking.tiers.notes,
        "figure": spec(charts.tiers_chart(ranking.measured, ranking.title, ranking.tiers.rows["source"])),
    }


def cells_table(one: SiteBoard, at: Addresses) -> Table:
    """Return the table of all cells."""
    docs = column_docs()
    further = further_of(one.cells.dropna(axis="columns", how="all").columns)
    many_shares = one.cells["train_frac"].nunique() > 1
    columns = [
        Column("rank", "rank", number=True),
        Column("source", "source"),
        Column("backbone", "backbone"),
        Column("labels", "labels", number=True, shown=many_shares),
        Column("miou", "mIoU", number=True, about=docs["miou"]),
        Column("miou_95", "95 %", number=True),
        *(Column(f"miou_{kind}_95", f"95 % {kind}", number=True) for kind in ("images", "both")),
        Column("weighted_f", "weighted F", number=True, about=docs["weighted_f"]),
        Column("weighted_f_95", "weighted F 95 %", number=True),
        *(Column(f"test-{name}", f"mIoU {name}", number=True) for name in further),
        Column("tuned", "tuned - default"),
        Column("val_default", "val default", number=True, shown=False),
        Column("gain", "gain of tuning", shown=False),
        Column("learned", "pseudo-labels", shown=False),
        Column("reconstructed", "held-out loss", shown=False),
        *(Column(name, title, number=True, about=DOCS[name]) for name, title in COSTS.items()),
        Column("run_s", "seconds per run", number=True, shown=False),
        Column("n", "replicates", number=True),
        Column("status", "status"),
    ]
    rows = [_cell_row(row, further, at) for row in plain_rows(one.cells)]
    return without_empty(Table("cells", columns, rows), ("rank", "miou"))


def _cell_row(row: Mapping[str, Any], further: list[str], at: Addresses) -> list[Cell]:
    compared = "tuned_minus_default" in row
    return [
        number(row["rank"], "{:.0f}"),
        Cell(source_text(row), link=f"../{at.sources[row['source']]}"),
        Cell(row["backbone"]),
        number(row["train_frac"], "{:.0%}"),
        number(row["miou"]),
        *(span(row, f"miou{kind}") for kind in ("", "_images", "_both")),
        number(row["weighted_f"]),
        span(row, "weighted_f"),
        *(number(row[column_of(name)]) for name in further),
        Cell(difference_text(row) if compared else DASH),
        Cell(DASH) if compared else number(row["val_miou_default"]),
        Cell(DASH if compared else gain_text(row["trials"], row["tuning_gain"], row["tuning_gain_se"])),
        Cell(learned_text(row)),
        Cell(reconstructed_text(row)),
        *(number(row[name], "{:.3g}") for name in COSTS),
        number(row["run_s"], "{:.1f}"),
        Cell(f"{row['n']} of {row['replicates']}", float(row["n"])),
        Cell(row["status"]),
    ]


def _costs(one: SiteBoard) -> Iterator[dict[str, Any]]:
    """Yield a figure of the score over each cost, and the cells that have no place in it."""
    for cost in COST_AXES:
        found = pareto.pareto(one.full_cells, one.full, cost)
        title = pareto.AXES[cost]
        figure = None if found.rows.empty else spec(charts.pareto_chart(found.rows, title, METRICS["miou"]))
        yield {"title": title, "figure": figure, "left_out": found.left_out}


def pairs_table(ranking: Ranking, at: Addresses) -> Table:
    """Return the table of all pairs of sources."""
    columns = [Column("a", "A"), Column("b", "B"), *_pair_columns("A - B")]
    body = [
        [*(Cell(name, link=f"../{at.sources[name]}") for name in (a, b)), *pair_cells(ranking, a, b, found, adjusted)]
        for a, b, found, adjusted in pairs_of(ranking)
    ]
    return without_empty(Table(f"pairs-{ranking.metric}", columns, body))


def against_table(ranking: Ranking, source: str, name: str, at: Addresses) -> Table:
    """Return the table of one source against all others. name: of the table."""
    body = [
        [Cell(other, link=f"../{at.sources[other]}"), *pair_cells(ranking, source, other, found, adjusted)]
        for other, found, adjusted in ranking.against(source)
    ]
    return without_empty(Table(name, [Column("other", "other source"), *_pair_columns("difference")], body))


def _pair_columns(effect: str) -> list[Column]:
    spans = [Column(kind, f"95 % {kind}", number=True) for kind in INTERVALS]
    numbers = [("p", "p"), ("holm", "p Holm"), ("shown", "could show")]
    return [
        Column("backbones", "backbones"),
        Column("effect", effect, number=True),
        *spans,
        *(Column(key, title, number=True) for key, title in numbers),
        Column("note", "note"),
    ]


def pair_cells(ranking: Ranking, a: str, b: str, found: Uncertainty, adjusted: float | None) -> list[Cell]:
    """Return the cells of a pair after its names. found: a - b."""
    one, shared = found.judged, ranking.measured.common(a, b)
    kinds = (found.trainings, found.images, found.both)
    return [
        Cell(shared[0] if len(shared) == 1 else f"{POOLED} ({len(shared)})"),
        number(one.effect, "{:+.4f}"),
        *(Cell(signed_span(kind.low, kind.high), kind.low) for kind in kinds),
        *(Cell(p_text(p), p) for p in (one.p, adjusted)),
        number(one.minimum_detectable_effect),
        text(one.why_not),
    ]


def _curves(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the curves over images for each source with sizes, and over labels where several shares were used."""
    parts = map(scaling.SUBSET.fullmatch, map(str, runs["source"].unique()))
    wanted = [("n", base) for base in sorted({found["base"] for found in parts if found and found["n"]})]
    if runs["train_frac"].nunique() > 1:
        wanted += [("train_fraction", name) for name in sorted(runs["source"].unique())]
    for axis, source in wanted:
        try:
            points = scaling.points(runs, axis, source)
        except ValueError:
            continue
        curves = {name: scaling.curve(by, np.random.default_rng(0)) for name, by in points.items()}
        yield {
            "title": f"{source} over {scaling.AXES[axis]}",
            "figure": spec(charts.scaling_chart(curves, scaling.AXES[axis], METRICS["miou"], source)),
            "verdicts": [(name, curve.verdict, curve.why) for name, curve in curves.items()],
        }


def _classes(one: SiteBoard, at: Addresses) -> Iterator[dict[str, Any]]:
    links = {"source": _from_board(at.sources)}
    for name in CLASSES:
        score = CLASS_SCORES[name]
        try:
            means = class_means(one.full, one.full_cells, name)
        except UnanswerableError as error:
            yield {"title": score.title, "note": str(error), "table": None}
            continue
        which = one.full_cells[["source", "backbone"]]
        rows = pd.concat([which, means.values.set_axis([*means.values.columns], axis=1)], axis=1)
        yield {"title": score.title, "note": score.note, "table": of_frame(f"classes-{name}", rows, links)}


def runs_table(runs: pd.DataFrame, at: Addresses) -> Table:
    """Return the table of runs, each with a link to its page."""
    columns = [
        Column("run", "run"),
        Column("source", "source"),
        Column("backbone", "backbone"),
        Column("labels", "labels", number=True),
        Column("replicate", "replicate", number=True),
        *(Column(name, title, number=True) for name, title in METRICS.items()),
        Column("status", "status"),
        Column("finished", "finished"),
    ]
    ordered = runs.sort_values(["source", "backbone", "train_frac", "replicate", "finished"])
    body = [
        [
            Cell(str(row["run"])[:8], link=f"../{at.of_run(row)}"),
            Cell(row["source"], link=f"../{at.sources[row['source']]}"),
            Cell(row["backbone"]),
            number(row["train_frac"], "{:.0%}"),
            number(row["replicate"], "{:.0f}"),
            *(number(row[name]) for name in METRICS),
            Cell(row["status"]),
            Cell(str(row["finished"])[:16].replace("T", " ")),
        ]
        for row in ordered.to_dict("records")
    ]
    return Table("runs", columns, body)


def _protocol(store: Store, one: SiteBoard) -> list[str]:
    record = record_of_row(store, one.first)
    if record is None or "protocol" not in record.settings:
        return []
    return json.dumps(record.settings["protocol"], indent=1).split("\n")
