"""Text of `bench table`. Loads neither torch nor anything of a matrix, so that it starts fast."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from results.escape import for_csv, for_json, unique
from results.known_leaks import unproven, unsearched
from results.marks import board_marks, board_words, leak_note, marks
from results.record import TEST
from results.text_tables import page

if TYPE_CHECKING:
    import pandas as pd


def table_text(
    cells: "pd.DataFrame", runs: "pd.DataFrame", form: str, both: "pd.DataFrame", columns: Sequence[str] = ()
) -> str:
    """Format the board as csv, json (a list of rows), md, latex or table; the last three end with the paper's rows.

    cells: rows of `board(runs)`, all or some. both: the runs with either schedule. columns: names of `board_columns.NAMES` to add.
    Scores of classes are tables of their own below the board, except in csv and json.
    """
    from bench.cli.board_columns import COST, widened
    from results.board import BOARD, constant_note
    from results.cell_cost import devices_note
    from results.cell_intervals import with_intervals
    from results.class_scores import RUN_SCORES
    from results.iou_convention import NOTE as IOU_NOTE

    if columns:
        in_rows = columns if form in ("csv", "json") else [name for name in columns if name in (*RUN_SCORES, COST)]
        cells = widened(cells, runs, in_rows)
    cells = with_intervals(cells, runs)
    if form == "csv":
        return for_csv(cells).rstrip("\n")
    rows = plain_rows(cells)
    if form == "json":
        return for_json(rows)
    if not rows:
        return f"no runs in this store yet; make some with `bench run --matrix demo`\n\n{_paper_text(form)}"
    boards: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        boards.setdefault(tuple(row[name] for name in BOARD), []).append(row)
    names = Counter(key[:2] for key in boards)
    parts = []
    for key, of_board in boards.items():
        its_cells, its_runs = (frame[(frame[BOARD] == list(key)).all(axis=1)] for frame in (cells, runs))
        note = constant_note(its_runs)
        notes = [] if note is None else [note]
        notes += _other_schedule(of_board, both) + ([IOU_NOTE] if "iou" in runs.attrs else [])
        notes += [note] if COST in columns and (note := devices_note(its_runs)) else []
        parts.append(_board_text(of_board, form, names[key[:2]] > 1, notes))
        parts += _class_tables(its_cells, its_runs, columns, form)
    return "\n\n".join([*parts, _paper_text(form)])


def plain_rows(cells: "pd.DataFrame") -> list[dict[str, Any]]:
    """Convert to plain values with all digits; missing ones become None."""
    plain = cells.astype(object).where(cells.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict(orient="records")]


LEARNED_NOTE = (
    "pseudo-labels: mIoU on held-out pseudo-labels after pretraining / of the best constant prediction; nothing was "
    "learned unless the first is higher"
)
RECONSTRUCTED_NOTE = (
    "held-out loss: mean absolute error over masked pixels of held-out images, before -> after pretraining without labels / of the "
    "best constant prediction; nothing was learned unless the second is lower than the third"
)


def _board_text(rows: list[dict[str, Any]], form: str, several: bool, notes: Sequence[str]) -> str:
    from results.cell_cost import COSTS, DOCS
    from results.cell_intervals import INTERVALS_NOTE
    from results.class_scores import RUN_SCORES
    from results.further import column_of, further_of
    from results.tuning_gain import gain_notes

    learned = any(row["heldout_miou"] is not None for row in rows)
    reconstructed = any(row["heldout_loss_constant"] is not None for row in rows)
    further = [name for name in further_of(rows[0]) if any(row[column_of(name)] is not None for row in rows)]
    compared = "tuned_minus_default" in rows[0]
    more = [(name, title) for name, title in (RUN_SCORES | COSTS).items() if name in rows[0]]
    kinds = [kind for kind in ("images", "both") if any(row[f"miou_{kind}_low"] is not None for row in rows)]
    columns = ["rank", "source", "backbone", "mIoU", "95 %", *(f"95 % {kind}" for kind in kinds), "weighted F", "95 %"]
    columns += [f"mIoU {name}" for name in further] + [title for _, title in more] + ["n"]
    columns += ["tuned - default"] if compared else ["val default", "gain of tuning"]
    columns += [*(["pseudo-labels"] if learned else []), *(["held-out loss"] if reconstructed else []), "status"]
    body = [
        (
            str(row["rank"] or "-"),
            source_text(row),
            row["backbone"],
            _number(row["miou"]),
            _interval(row, "miou"),
            *(_interval(row, f"miou_{kind}") for kind in kinds),
            _number(row["weighted_f"]),
            _interval(row, "weighted_f"),
            *(_number(row[column_of(name)]) for name in further),
            *(_cost(row[name]) if name in COSTS else _number(row[name]) for name, _ in more),
            f"{row['n']}/{row['replicates']}",
            *_tuning(row),
            *([learned_text(row)] if learned else []),
            *([reconstructed_text(row)] if reconstructed else []),
            row["status"],
        )
        for row in rows
    ]
    notes = [
        *row_notes(rows),
        *([INTERVALS_NOTE] if kinds else []),
        *notes,
        *gain_notes(rows),
        *([LEARNED_NOTE] if learned else []),
        *([RECONSTRUCTED_NOTE] if reconstructed else []),
        *(f"{title}: {DOCS[name]}" for name, title in more if name in DOCS),
    ]
    notes += [f"further test splits: {', '.join(further)}; --test shows the board of one"] if further else []
    return page(_board_head(rows[0], several), columns, body, notes, form)


def _class_tables(cells: "pd.DataFrame", runs: "pd.DataFrame", columns: Sequence[str], form: str) -> Iterator[str]:
    """Yield a table for each score of classes among `columns`. cells, runs: rows of one board."""
    from results.board_choice import UnanswerableError
    from results.class_scores import CLASS_SCORES, UNDEFINED, class_means

    for name in (name for name in columns if name in CLASS_SCORES):
        score = CLASS_SCORES[name]
        head = [f"{score.title} of each class, mean over replicates: {score.note}"]
        try:
            means = class_means(runs, cells, name)
        except UnanswerableError as error:
            yield page([*head, str(error)], ("source", "backbone"), (), (), form)
            continue
        body = [
            (
                source_text(cell),
                str(cell["backbone"]),
                *(_number(None if value != value else value) for value in values),
            )
            for cell, values in zip(cells.to_dict("records"), means.values.to_numpy(), strict=True)
        ]
        notes = [*([f"'-': {UNDEFINED}"] if means.values.isna().any(axis=None) else []), *means.unread]
        yield page(
            head, ("source", "backbone", *unique(means.values.columns, ("source", "backbone"))), body, notes, form
        )


def _board_head(first: Mapping[str, Any], several: bool) -> list[str]:
    """Lines above a board: which one it is, and warnings."""
    which = f" (data {first['target_hash'][:6]}, settings {first['protocol_hash'][:6]}, {first['result_version']})"
    named = f"{first['target']}, {first['protocol']}{board_words(first)}"
    return [f"{named}{which if several else ''}: {first['label_note']}", *board_marks(first)]


def row_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on single rows: failures, leaks and intervals, each once."""
    notes = [f"{row['source']} x {row['backbone']}: {row['reason']}" for row in rows if row["reason"]]
    notes += [leak_note(row["source"], row["leak"]) for row in rows if row["leak"] is not None]
    notes += dict.fromkeys(_touched(row) for row in rows if row["touched"])
    notes += dict.fromkeys(unproven(row["source"], row["says_touched"]) for row in rows if row["says_touched"])
    notes += dict.fromkeys(str(row["interval_note"]) for row in rows if row["interval_note"] and row["n"])
    notes += dict.fromkeys(str(row["images_note"]) for row in rows if row["images_note"])
    return notes


def _other_schedule(rows: Sequence[Mapping[str, Any]], both: "pd.DataFrame") -> list[str]:
    """Notes on what tuning changed on the test images; with the tuned schedule, that a table shows it."""
    from results.tuned_against_default import SAME_SCHEDULE, TUNED_NOTE, conclusions_note, other_note

    if "tuned_minus_default" not in rows[0]:
        return [note for note in [other_note(rows[0], both)] if note]
    of_shares = {row["train_frac"]: row for row in rows}
    notes = [conclusions_note(row, both) for row in of_shares.values()]
    whys = dict.fromkeys(row["tuned_note"] for row in rows if row["tuned_note"] not in (None, SAME_SCHEDULE))
    return [TUNED_NOTE, *(f"tuned - default: {why}" for why in whys), *(note for note in notes if note)]


def _tuning(row: Mapping[str, Any]) -> list[str]:
    """Format what tuning gained on val, or with the default schedule how the tuned runs differ on test."""
    from results.tuned_against_default import difference_text
    from results.tuning_gain import gain_text

    if "tuned_minus_default" in row:
        return [difference_text(row)]
    return [_number(row["val_miou_default"]), gain_text(row["trials"], row["tuning_gain"], row["tuning_gain_se"])]


def _touched(row: Mapping[str, Any]) -> str:
    if row["test_split"] != TEST:
        return unsearched(row["source"], row["touched"], row["test_split"])
    rest = "under 80 % are left, so it has no rank" if row["rank"] is None else "it is ranked and compared on the rest"
    return f"{row['source']} has seen {row['touched']:.1%} of the test images; {rest}"


def source_text(row: Mapping[Any, Any]) -> str:
    """Format the source of a row of the board with its marks, as every table of the board shows it."""
    suffix = "".join(f" ({mark})" for mark in marks(row))
    return f"{row['source']}{suffix}" + ("" if row["train_frac"] == 1 else f" at {row['train_frac']:.0%}")


def learned_text(row: Mapping[Any, Any]) -> str:
    """Format what was learned of pseudo-labels. row: of `plain_rows`."""
    value, constant = row["heldout_miou"], row["heldout_miou_constant"]
    return "-" if value is None else f"{value:.3f} / {constant:.3f}"


def reconstructed_text(row: Mapping[Any, Any]) -> str:
    """Format the held-out loss of a pretraining without labels. row: of `plain_rows`."""
    before, after, constant = (row[name] for name in ("heldout_loss_before", "heldout_loss", "heldout_loss_constant"))
    return "-" if constant is None else f"{before:.3f} -> {after:.3f} / {constant:.3f}"


def _paper_text(form: str) -> str:
    from results.reference import paper

    title, rows = paper()
    body = [(row.target, row.source, row.backbone, _number(row.miou), _number(row.weighted_f)) for row in rows]
    head = [f"Printed in the paper, not measured here: {title}"]
    return page(head, ("target", "source", "backbone", "mIoU", "weighted F"), body, (), form)


def _cost(value: float | None) -> str:
    from results.cell_cost import NOT_MEASURED

    return NOT_MEASURED if value is None else f"{value:.3g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(row: dict[str, Any], metric: str) -> str:
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return "-" if low is None else f"{low:.3f}..{high:.3f}"
