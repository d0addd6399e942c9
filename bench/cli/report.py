"""One static page of a store: tables, tiers, pairs, curves, protocol and definitions. Needs no server and no network."""

import json
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.cli.questions import cell_text, span, tiers_view
from bench.cli.tables import source_text
from results import scaling
from results.board import BOARD, board, constant_note
from results.charts import scaling_chart, svg, tiers_chart
from results.compare import HOW, INTERVALS, POOLED, p_text
from results.escape import for_csv, for_html, without_paths
from results.further import column_of, further_of, on_split, splits_of, with_further
from results.marks import board_words
from results.record import TEST
from results.record_files import record_of_row
from results.replicate_scores import METRICS, Samples, samples
from results.schedule_names import TUNED
from results.scores import Scores
from results.store import Store, write_atomic
from results.table import runs_frame
from results.uncertainty import all_pairs

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 84rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid #8884; } td.n { text-align: right; }
.wide { overflow-x: auto; } .note { color: #777; max-width: 50rem; }
svg { max-width: 100%; height: auto; overflow: visible; background: #fff; }
pre { white-space: pre-wrap; background: #8881; padding: .7rem; }
"""


def write_report(store: Store, out: Path) -> Path:
    """Write out/index.html and out/runs.csv; return the path of the page.

    Raises:
        StoreError: there is no store, or the folder cannot be written.
    """
    runs = runs_frame(store)
    boards = [rows for _, rows in sorted(runs.groupby(BOARD), key=_place)]
    sections = [part for rows in boards for split in splits_of(rows) for part in _board(store, on_split(rows, split))]
    page = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>satir-bench: {for_html(store.root.resolve().name)}</title><style>{STYLE}</style>",
        "<h1>satir-bench</h1>",
        *(f"<p>Left out: {for_html(without_paths(text, store.root))}" for text in runs.attrs["unreadable"]),
        *(sections or ["<p>No runs in this store yet."]),
        *_definitions(),
    ]
    lists = {
        name: runs[name].map(_json_list) for name in runs.columns if runs[name].map(type).isin((list, np.ndarray)).any()
    }
    write_atomic(out / "runs.csv", for_csv(runs.assign(**lists)).encode())
    write_atomic(out / "index.html", "\n".join(page).encode())
    return out / "index.html"


def _place(board: tuple[Any, pd.DataFrame]) -> tuple[Any, ...]:
    """Return what boards are sorted by: their names, the tuned schedule before the default one."""
    return (*board[0][:-1], board[0][-1] != TUNED)


def _board(store: Store, rows: pd.DataFrame) -> Iterable[str]:
    first = rows.iloc[0]
    where = board_words(first.to_dict())
    yield f"<h2>{for_html(first['target'])}, {for_html(first['protocol'])}{for_html(where)}</h2>"
    which = f"Data {first['target_hash'][:8]}, settings {first['protocol_hash'][:8]}."
    yield f"<p class=note>{for_html(first['label_note'])}. {for_html(which)}"
    if (note := constant_note(rows)) is not None:
        yield f"<p class=note>{for_html(note)}"
    cells = board(rows) if first["test_split"] != TEST else with_further(board(rows), rows)
    further = further_of(cells.columns)
    names = ["rank", "source", "backbone", "labels", "mIoU", "95 %", "weighted F", "95 %", "replicates", "status"]
    yield _table(
        [*names[:8], *(f"mIoU {name}" for name in further), *names[8:]],
        [
            (
                _or_dash(cell["rank"], "{:.0f}"),
                source_text(cell),
                cell["backbone"],
                f"{cell['train_frac']:.0%}",
                *(text for metric in METRICS for text in (_or_dash(cell[metric]), _interval(cell, metric))),
                *(_or_dash(cell[column_of(name)]) for name in further),
                f"{cell['n']} of {cell['replicates']}",
                cell["status"],
            )
            for cell in cells.to_dict("records")
        ],
    )
    for cell in cells.to_dict("records"):
        if pd.notna(why := cell["leak"] if pd.notna(cell["leak"]) else cell["reason"]):
            yield "<p class=note>" + for_html(f"{cell['source']} x {cell['backbone']}: {why}")
    full = rows[rows["train_frac"] == rows["train_frac"].max()]
    for metric, title in METRICS.items():
        measured = samples(full, metric)
        for note in measured.notes[1:]:
            yield f"<p><strong>{for_html(note)}</strong>"
        if len(measured.scores) > 1:
            yield from _pairs(measured, metric, title)
    yield from _curves(rows)
    record = record_of_row(store, first.to_dict())
    if record is not None and "protocol" in record.settings:
        settings = "\n".join(map(for_html, json.dumps(record.settings["protocol"], indent=1).split("\n")))
        yield f"<h3>Protocol</h3><pre>{settings}</pre>"


def _pairs(measured: Samples, metric: str, title: str) -> Iterable[str]:
    ranked = tiers_view(measured, metric)
    yield f"<h3>{title}: tiers</h3>"
    yield _table(map(str, ranked.rows), (map(cell_text, row) for row in ranked.rows.itertuples(index=False, name=None)))
    yield f"<p class=note>{' '.join(map(for_html, ranked.notes))}"
    yield svg(tiers_chart(measured, title))
    pairs = all_pairs(measured)
    yield f"<h3>{title}: pairs</h3><p class=note>{for_html(HOW)}</p>"
    body = []
    for a, b in combinations(sorted(measured.scores), 2):
        if (a, b) in pairs:
            found, adjusted = pairs[a, b]
            one = found.judged
            shared = measured.common(a, b)
            backbones = shared[0] if len(shared) == 1 else f"{POOLED} ({len(shared)})"
            tested = (
                f"{one.effect:+.4f}",
                *(span(kind.low, kind.high) for kind in (found.trainings, found.images, found.both)),
                p_text(one.p),
                p_text(adjusted),
            )
            body.append((a, b, backbones, *tested, _or_dash(one.minimum_detectable_effect), one.why_not or ""))
    yield _table(
        ("A", "B", "backbones", "A - B", *(f"95 % {kind}" for kind in INTERVALS), "p", "p Holm", "could show", "note"),
        body,
    )


def _curves(rows: pd.DataFrame) -> Iterable[str]:
    bases = {
        parts["base"] for name in rows["source"].unique() if (parts := scaling.SUBSET.fullmatch(name)) and parts["n"]
    }
    wanted = [("n", base) for base in sorted(bases)]
    if rows["train_frac"].nunique() > 1:
        wanted += [("train_fraction", name) for name in sorted(rows["source"].unique())]
    for axis, source in wanted:
        try:
            points = scaling.points(rows, axis, source)
        except ValueError:
            continue
        curves = {name: scaling.curve(by, np.random.default_rng(0)) for name, by in points.items()}
        yield f"<h3>{for_html(source)} over {scaling.AXES[axis]}</h3>"
        yield svg(scaling_chart(curves, scaling.AXES[axis], METRICS["miou"], source))
        yield "".join(
            f"<p>{for_html(name)}: <strong>{curve.verdict}</strong>, {for_html(curve.why)}"
            for name, curve in curves.items()
        )


def _definitions() -> Iterable[str]:
    yield "<h2>Definitions</h2><dl>"
    for name, field in Scores.model_fields.items():
        yield f"<dt><code>{name}</code><dd>{for_html(field.description or '')}"
    yield "</dl><p class=note>Every run, with all its columns, is in <a href=runs.csv>runs.csv</a>."


def _table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = "".join(f"<th>{for_html(name)}" for name in columns)
    body = "".join("<tr>" + "".join(_cell(str(value)) for value in row) for row in rows)
    return f"<div class=wide><table><thead><tr>{head}<tbody>{body}</table></div>"


def _cell(text: str) -> str:
    number = text.lstrip("+-").replace(".", "").replace("%", "").isdigit()
    return f"<td{' class=n' if number else ''}>{for_html(text)}"


def _json_list(value: Any) -> Any:  # noqa: ANN401
    """Format a list as JSON with all digits, which numpy would cut."""
    return json.dumps(np.asarray(value).tolist()) if isinstance(value, list | np.ndarray) else value


def _or_dash(value: Any, form: str = "{:.4f}") -> str:  # noqa: ANN401
    return "-" if value is None or pd.isna(value) else form.format(value)


def _interval(cell: Any, metric: str) -> str:  # noqa: ANN401
    low, high = cell[f"{metric}_low"], cell[f"{metric}_high"]
    return "-" if pd.isna(low) else f"{low:.4f}..{high:.4f}"
