"""Text of `bench compare`, `scaling` and the views of `table`. Loads no torch."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
import pandas as pd

from results import scaling
from results.board_choice import UnanswerableError, one_board, one_protocol
from results.claims import Claim, judge, sentence
from results.compare import CLASS_COLUMNS, HOW, INTERVALS, classes_of, compare, compare_classes, p_text
from results.escape import ascii_json, for_csv, for_terminal, unique
from results.further import on_split
from results.marks import schedule_words, split_words
from results.record import TEST
from results.replicate_scores import METRICS, Samples, samples
from results.schedule_names import DEFAULT
from results.source_notes import STATED, source_notes
from results.store import Store
from results.table import runs_frame
from results.text_tables import grid, page
from results.tiers import tier_notes, tier_table, tiers
from results.tuning_gain import gains


class View(NamedTuple):
    """A table with the text above and below it."""

    head: Sequence[str]
    rows: pd.DataFrame
    notes: Sequence[str] = ()


class Filters(TypedDict, total=False):
    """Selects one board of a store."""

    target: str | None
    protocol: str | None
    train_frac: float | None
    schedule: str | None
    test: str | None


def board_of(store: Store, *, test: str | None = None, **filters: Any) -> pd.DataFrame:  # noqa: ANN401 - other Filters
    """Return the runs of the one board that the filters select, with the scores on the test split `test`."""
    return on_split(one_board(runs_frame(store), **filters), test)


def compare_text(
    store: Store, a: str, b: str, metric: str, backbone: str | None, per_class: bool, **filters: Unpack[Filters]
) -> str:
    """Compare two sources.

    Raises:
        UnanswerableError: they cannot be compared.
    """
    runs = board_of(store, **filters)
    measured = samples(runs, metric)
    rows = compare(measured, a, b)
    if backbone is not None:
        rows = rows[rows["backbone"] == backbone]
        if rows.empty:
            raise UnanswerableError(f"backbone '{backbone}' has no runs of both '{a}' and '{b}'")
    spans = [f"95 % {kind}" for kind in INTERVALS]
    columns = ("backbone", a, b, "difference", *spans, "p", "p Holm", "could show", "replicates")
    body = [
        (
            row["backbone"],
            f"{row['mean_a']:.4f}",
            f"{row['mean_b']:.4f}",
            f"{row['effect']:+.4f}",
            *(span(row[f"{kind}_low"], row[f"{kind}_high"]) for kind in INTERVALS),
            *(p_text(row[name]) for name in ("p", "p_holm")),
            "-" if pd.isna(row["shown"]) else f"{row['shown']:.4f}",
            f"{row['n_a']} and {row['n_b']}",
        )
        for row in rows.to_dict("records")
    ]
    notes = [str(why) for why in dict.fromkeys(rows["why_not"].dropna())]
    notes += map(str, dict.fromkeys(rows["images"]))
    notes += measured.left_out_notes(a, b)
    verdict = sentence(judge(Claim(a, ">", b, 0.0, metric, backbone), measured))
    parts = [
        *map(for_terminal, (*measured.notes, f"{METRICS[metric]}: {a} against {b}")),
        "",
        grid(columns, body, "table"),
        "",
        *map(for_terminal, notes),
        HOW,
        "",
        for_terminal(verdict),
    ]
    if per_class:
        parts += ["", _classes(runs, a, b, metric, backbone)]
    return "\n".join(parts)


def _classes(runs: pd.DataFrame, a: str, b: str, metric: str, backbone: str | None) -> str:
    """Tabulate the difference of each class."""
    rows = compare_classes(runs, a, b, metric, backbone)
    body = [
        (
            row["class"],
            "-" if pd.isna(row["effect"]) else f"{row['effect']:+.4f}",
            span(row["low"], row["high"]),
            row["why_not"] if pd.isna(row["p_holm"]) else p_text(row["p_holm"]),
        )
        for row in rows.to_dict("records")
    ]
    return grid(("class", "difference", "95 % trainings", "p Holm over classes"), body, "table")


def tiers_view(measured: Samples, metric: str) -> View:
    """Rank the sources of a board in tiers; each pair is pooled over the backbones that both have."""
    rows = tiers(measured)
    return View(measured.notes, tier_table(measured, rows, METRICS[metric]), tier_notes(measured, rows))


def _tiers(runs: pd.DataFrame, metric: str) -> View:
    measured = samples(runs, metric)
    view = tiers_view(measured, metric)
    return view._replace(notes=[*measured.left_out_notes(), *view.notes])


def scaling_text(
    store: Store, axis: str, source: str, metric: str, out: Path | None, test: str | None = None, **filters: str | None
) -> str:
    """Describe the scaling curve of a source on each backbone, with verdicts; `out`: also draw it, .png or .svg."""
    table = on_split(one_protocol(runs_frame(store), **filters), test)
    points = scaling.points(table, axis, source, metric)
    curves = {name: scaling.curve(by_size, np.random.default_rng(0)) for name, by_size in points.items()}
    rows = scaling.sizes_frame(curves, scaling.without_pretraining(table, axis, source, metric))
    head = [*samples(table[table["train_frac"] == table["train_frac"].max()]).notes]
    head += [f"{METRICS[metric]} of {source} over {scaling.AXES[axis]}; 95 % intervals over replicates"]
    parts = [*map(for_terminal, head)]
    columns = ["size", METRICS[metric], "95 %", "replicates"]
    columns += ["labels that 'none' needs for it"] if "labels" in rows else []
    for name, curve in curves.items():
        body = [
            (
                f"{row['size']:g}",
                f"{row['mean']:.4f}",
                "-" if pd.isna(row["low"]) else f"{row['low']:.4f}..{row['high']:.4f}",
                str(row["replicates"]),
                *([_labels(row)] if "labels" in rows else []),
            )
            for row in rows[rows["backbone"] == name].to_dict("records")
        ]
        parts += ["", for_terminal(name), grid(columns, body, "table"), f"{curve.verdict}: {curve.why}"]
        if curve.left_out is not None:
            law, constant = curve.left_out
            parts += [
                f"error at the largest size when predicted from the others: {law:+.4f}; of a constant: {constant:+.4f}"
            ]
    if out is not None:
        from results.charts import scaling_chart, write_chart

        score = f"{METRICS[metric]}{split_words(test or TEST)}{schedule_words(filters.get('schedule'))}"
        write_chart(scaling_chart(curves, scaling.AXES[axis], score, source), out)
        parts += ["", for_terminal(f"picture: {out}")]
    return "\n".join(parts)


def _labels(row: Mapping[Hashable, Any]) -> str:
    """Format the share of labels and its interval, or why one is missing."""
    if pd.isna(row["labels"]):
        return str(row["labels_note"])
    ends = ["beyond" if pd.isna(row[name]) else f"{row[name]:.0%}" for name in ("labels_low", "labels_high")]
    interval = f"{ends[0]} to {ends[1]}" if row["labels_note"] in ("", scaling.BEYOND) else row["labels_note"]
    return f"{row['labels']:.0%} ({interval})"


def classes_view(runs: pd.DataFrame, metric: str) -> View:
    """Mean of each class over the replicates of each cell; missing for classes absent from the test images."""
    names, measured = unique(classes_of(runs), ("source", "backbone", "n")), samples(runs, metric)
    rows = []
    for (source, backbone), cell in measured.runs.groupby(["source", "backbone"]):
        values = np.array([[np.nan if v is None else v for v in row] for row in cell[CLASS_COLUMNS[metric]]], float)
        rows.append((source, backbone, len(cell), *values.mean(0)))
    frame = pd.DataFrame(rows, columns=["source", "backbone", "n", *names])
    return View(
        (*measured.notes, f"{METRICS[metric]} of each class, mean over replicates"), frame, measured.left_out_notes()
    )


def tuning_view(runs: pd.DataFrame, metric: str) -> View:
    """What tuning gained: default and tuned schedule of each cell, noise, and the expected best of fewer trials."""
    if (runs["schedule_kind"] == DEFAULT).any():
        raise UnanswerableError("the default schedule is not tuned: leave out --schedule default")
    measured = samples(runs, metric)
    rows, notes = gains(measured.runs.drop_duplicates("cell").to_dict("records"))
    return View(measured.notes, rows, [*measured.left_out_notes(), *notes])


def sources_view(runs: pd.DataFrame, metric: str) -> View:
    """Licence of each source, and what it has seen, as its card states them."""
    return View(samples(runs, metric).notes, source_notes(runs), [STATED])


VIEWS = {"tiers": _tiers, "sources": sources_view, "per-class": classes_view, "tuning": tuning_view}


def view_text(store: Store, view: str, metric: str, form: str, backbone: str | None, **filters: Unpack[Filters]) -> str:
    """Format a view of one board, or of one backbone on it, as csv or json (all digits, no notes), table, md or latex.

    Raises:
        UnanswerableError: the filters select no board, or several.
    """
    runs = board_of(store, **filters)
    if backbone is not None:
        known = ", ".join(sorted(runs["backbone"].unique()))
        runs = runs[runs["backbone"] == backbone]
        if runs.empty:
            raise UnanswerableError(f"no runs on '{backbone}' on this board; choose one of {known}")
    shown = VIEWS[view](runs, metric)
    if form == "csv":
        return for_csv(shown.rows).rstrip("\n")
    if form == "json":
        return ascii_json(str(shown.rows.to_json(orient="records", indent=1, double_precision=15)))
    body = [tuple(map(cell_text, row)) for row in shown.rows.itertuples(index=False, name=None)]
    return page(shown.head, list(map(str, shown.rows)), body, shown.notes, form)


def cell_text(value: Any) -> str:  # noqa: ANN401
    """Format a value of a view."""
    if isinstance(value, float) and not np.isnan(value):
        return f"{value:.4f}"
    return "-" if pd.isna(value) or value == "" else str(value)


def span(low: float | None, high: float | None) -> str:
    """Format an interval of differences."""
    return "-" if low is None or high is None or pd.isna(low) else f"{low:+.4f}..{high:+.4f}"
