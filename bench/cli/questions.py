"""Text for `bench compare`, `claim` and `table --tiers`: what a store knows, in words and aligned columns. Loads no torch."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
import pandas as pd

from pretrain_sources.config_file import read_yaml_list
from results import image_bootstrap, scaling, stats
from results.board_choice import UnanswerableError, one_board, one_protocol
from results.claims import Claim, Expected, Judgement, judge, judge_entry, parse, sentence
from results.compare import CLASS_COLUMNS, POOLED, classes_of, compare, compare_classes
from results.escape import ascii_json, for_csv, for_terminal, unique
from results.replicate_scores import METRICS, Samples, samples
from results.store import Store
from results.table import runs_frame
from results.text_tables import CLEAN, grid, page
from results.tiers import tier_notes, tiers

HOW = """Intervals are 95 %, over replicates: Welch on one backbone, the mean of the backbones' differences for 'all'. p Holm counts
all pairs of the board. 'could show': the smallest difference that such data finds in 80 % of experiments."""


class View(NamedTuple):
    """A table with the words above and below it."""

    head: Sequence[str]
    rows: pd.DataFrame
    notes: Sequence[str] = ()


class Filters(TypedDict, total=False):
    """Which board of a store is asked about."""

    target: str | None
    protocol: str | None
    train_frac: float | None


def board_of(store: Store, **filters: Unpack[Filters]) -> pd.DataFrame:
    """The runs of the one board that the filters name."""
    return one_board(runs_frame(store), **filters)


def compare_text(
    store: Store, a: str, b: str, metric: str, backbone: str | None, per_class: bool, **filters: Unpack[Filters]
) -> str:
    """Two sources held against each other.

    Raises:
        UnanswerableError: they cannot be; the message says why.
    """
    runs = board_of(store, **filters)
    found = samples(runs, metric)
    rows = compare(found, a, b)
    if backbone is not None:
        rows = rows[rows["backbone"] == backbone]
        if rows.empty:
            raise UnanswerableError(f"'{a}' and '{b}' were not both measured on '{backbone}'")
    columns = ("backbone", a, b, "difference", "95 %", "p", "p Holm", "could show", "replicates", "95 % over images")
    body = [
        (
            row["backbone"],
            f"{row['mean_a']:.4f}",
            f"{row['mean_b']:.4f}",
            f"{row['effect']:+.4f}",
            span(row["low"], row["high"]),
            *(p_text(row[name]) for name in ("p", "p_holm")),
            "-" if pd.isna(row["shown"]) else f"{row['shown']:.4f}",
            f"{row['n_a']} and {row['n_b']}",
            span(*image_bootstrap.interval(store, found, a, b, metric, _one(row["backbone"]))[0]),
        )
        for row in rows.to_dict("records")
    ]
    notes = [str(why) for why in dict.fromkeys(rows["why_not"].dropna())]
    notes += [image_bootstrap.interval(store, found, a, b, metric, _one(rows["backbone"].iloc[-1]))[1]]
    notes += _left_out(found, a, b)
    verdict = sentence(judge(Claim(a, ">", b, 0.0, metric, backbone), found))
    parts = [
        *map(for_terminal, (*found.notes, f"{METRICS[metric]}: {a} against {b}")),
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
    """Differences class by class."""
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
    return grid(("class", "difference", "95 %", "p Holm over classes"), body, "table")


def _one(backbone: str) -> str | None:
    return None if backbone == POOLED else backbone


def claim_text(store: Store, text: str, **filters: Unpack[Filters]) -> tuple[str, Judgement]:
    """(the judgement of a claim in words, the judgement)."""
    claim = parse(text)
    told = judge(claim, samples(board_of(store, **filters), claim.metric))
    return for_terminal(sentence(told)), told


def claims_text(store: Store, path: Path, form: str = "text") -> tuple[str, bool]:
    """(what stands on each entry of a claims file and how it is judged, whether all are as expected); md: lists for a text.

    What an entry `says`, and what it is `about`, is Markdown of whoever wrote the file: it stays, on one line.
    """
    table, lines, good = runs_frame(store), [], True
    for entry in read_yaml_list(path, Expected):
        expected, told = _expected(entry, table)
        good &= expected
        mark = f"{'as expected' if expected else 'NOT AS EXPECTED'} ({entry.expect})"
        claim, told = (CLEAN["md" if form == "md" else "table"](text) for text in (entry.claim, told))
        says, about = (for_terminal(text or "") for text in (entry.says, entry.about))
        if form == "md":
            lines += ["", about, ""] if about else []
            lines.append(f"- **{says or claim}** {'' if expected else f'{mark}: '}{told}.")
        else:
            lines.append("\n  ".join(filter(None, [f"{mark}: {claim}", says, told])))
    if not lines:
        raise UnanswerableError(f"{path} holds no claims")
    return "\n".join(lines).strip("\n"), good


def _expected(entry: Expected, table: pd.DataFrame) -> tuple[bool, str]:
    try:
        found = judge_entry(entry, table)
    except UnanswerableError as error:
        return False, str(error)
    return found.verdict.lower() == entry.expect, sentence(found)


def tiers_view(found: Samples, metric: str) -> View:
    """The sources of a board in tiers, each pair pooled over the backbones that both have."""
    rows = tiers(found)
    names = {"mean": f"mean {METRICS[metric]}", "n": "replicates", "beaten_by": "established better"}
    return View(found.notes, rows.drop(columns="untested").rename(columns=names), tier_notes(found, rows))


def _tiers(runs: pd.DataFrame, metric: str) -> View:
    found = samples(runs, metric)
    view = tiers_view(found, metric)
    return view._replace(notes=[*_left_out(found), *view.notes])


def scaling_text(store: Store, axis: str, source: str, metric: str, out: Path | None, **filters: str | None) -> str:
    """The curve of a source over a size, on each backbone, with verdicts; `out`: a picture of it, .png or .svg."""
    table = one_protocol(runs_frame(store), **filters)
    found = scaling.points(table, axis, source, metric)
    curves = {name: scaling.curve(by, np.random.default_rng(0)) for name, by in found.items()}
    rows = scaling.sizes_frame(curves, scaling.without_pretraining(table, axis, source, metric))
    words = [*samples(table[table["train_frac"] == table["train_frac"].max()]).notes]
    words += [f"{METRICS[metric]} of {source} over {scaling.AXES[axis]}; 95 % intervals over replicates"]
    parts = [*map(for_terminal, words)]
    columns = ["size", METRICS[metric], "95 %", "replicates"]
    columns += ["labels that 'none' needs for it"] if "labels" in rows else []
    for name, told in curves.items():
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
        parts += ["", for_terminal(name), grid(columns, body, "table"), f"{told.verdict}: {told.why}"]
        if told.left_out is not None:
            law, constant = told.left_out
            parts += [f"the largest size, predicted from the others: off by {law:+.4f}, by a constant {constant:+.4f}"]
    if out is not None:
        from results.charts import scaling_chart, write_chart

        write_chart(scaling_chart(curves, scaling.AXES[axis], METRICS[metric], source), out)
        parts += ["", for_terminal(f"picture: {out}")]
    return "\n".join(parts)


def _labels(row: Mapping[Hashable, Any]) -> str:
    """The share of labels, its interval, and why one of them is missing."""
    if pd.isna(row["labels"]):
        return str(row["labels_note"])
    ends = ["beyond" if pd.isna(row[name]) else f"{row[name]:.0%}" for name in ("labels_low", "labels_high")]
    told = f"{ends[0]} to {ends[1]}" if row["labels_note"] in ("", scaling.BEYOND) else row["labels_note"]
    return f"{row['labels']:.0%} ({told})"


def _left_out(found: Samples, *only: str) -> list[str]:
    left = found.left_out.items()
    return [f"left out, {name} x {place}: {why}" for (name, place), why in left if not only or name in only]


def classes_view(runs: pd.DataFrame, metric: str) -> View:
    """Of each cell that counts the mean of every class over its replicates; missing: absent from the test."""
    names, found = unique(classes_of(runs), ("source", "backbone", "n")), samples(runs, metric)
    rows = []
    for (source, backbone), cell in found.runs.groupby(["source", "backbone"]):
        values = np.array([[np.nan if v is None else v for v in row] for row in cell[CLASS_COLUMNS[metric]]], float)
        rows.append((source, backbone, len(cell), *values.mean(0)))
    frame = pd.DataFrame(rows, columns=["source", "backbone", "n", *names])
    return View((*found.notes, f"{METRICS[metric]} of each class, mean over replicates"), frame, _left_out(found))


def tuning_view(runs: pd.DataFrame, metric: str) -> View:
    """What tuning was worth: of each cell the default and the tuned schedule, and the best to be expected of fewer trials."""
    found = samples(runs, metric)
    counted = found.runs.drop_duplicates("cell")
    most = 0 if counted.empty else int(counted["trials"].max())
    counts = sorted({k for k in (1, 2, 4, 8, 16, 32, 64) if k < most} | ({most} if most else set()))
    rows = []
    for row in counted.to_dict("records"):
        # a schedule with which a training diverged is worth nothing
        tried = [0.0 if value is None or pd.isna(value) else float(value) for value in row["trial_val_mious"]]
        best = [stats.expected_best(tried, k) if k <= len(tried) else np.nan for k in counts]
        gain = row["tuned_val_miou"] - row["default_val_miou"]
        rows.append((row["source"], row["backbone"], row["default_val_miou"], gain, *best))
    columns = ["source", "backbone", "default", "tuned - default", *(f"best of {k}" for k in counts)]
    why = "Validation mIoU, which chooses and is no result; 'best of k': what k draws from the trials are expected to reach."
    lost = any(len(tried) == 0 for tried in counted["trial_val_mious"])
    notes = [why, *(["'-' under 'best of': recorded before single trials were kept"] if lost else [])]
    return View(found.notes, pd.DataFrame(rows, columns=columns), [*_left_out(found), *notes])


VIEWS = {"tiers": _tiers, "per-class": classes_view, "tuning": tuning_view}


def view_text(store: Store, view: str, metric: str, form: str, backbone: str | None, **filters: Unpack[Filters]) -> str:
    """A view of one board, or of one backbone on it, as csv and json (all digits, no words), table, md or latex.

    Raises:
        UnanswerableError: the filters name no board, or several.
    """
    runs = board_of(store, **filters)
    if backbone is not None:
        there = ", ".join(sorted(runs["backbone"].unique()))
        runs = runs[runs["backbone"] == backbone]
        if runs.empty:
            raise UnanswerableError(f"no runs on '{backbone}' on this board; there are: {there}")
    told = VIEWS[view](runs, metric)
    if form == "csv":
        return for_csv(told.rows).rstrip("\n")
    if form == "json":
        return ascii_json(str(told.rows.to_json(orient="records", indent=1, double_precision=15)))
    body = [tuple(map(cell_text, row)) for row in told.rows.itertuples(index=False, name=None)]
    return page(told.head, list(map(str, told.rows)), body, told.notes, form)


def cell_text(value: Any) -> str:  # noqa: ANN401
    """A value of a view in a table for people."""
    if isinstance(value, float) and not np.isnan(value):
        return f"{value:.4f}"
    return "-" if pd.isna(value) or value == "" else str(value)


def span(low: float | None, high: float | None) -> str:
    """An interval of differences."""
    return "-" if low is None or high is None or pd.isna(low) else f"{low:+.4f}..{high:+.4f}"


def p_text(value: float | None) -> str:
    """A p, or - where there is none."""
    if value is None or pd.isna(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
