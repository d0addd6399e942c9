"""Replicate scores of the comparable cells of one board, with the notes that belong to them.

A cell is comparable if every replicate is present and ok, if it is the newest identity of its name, and if its source is not marked
as a leak; an oracle is compared and never ranked. Test images that one source of a pair has seen are left out of that pair.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results import known_leaks
from results.board import board
from results.board_choice import UnanswerableError
from results.known_leaks import LEAST_CLEAN, KnownLeaks, clean_row, scored_images
from results.marks import board_marks, board_words, is_oracle, leak_note
from results.record import TEST
from results.schedule_names import TUNED

METRICS = {"miou": "mIoU", "weighted_f": "weighted F-measure"}
Metric = str | Callable[[Any], float]  # column of a run, or function from row to score (NaN: absent)


@dataclass(frozen=True)
class Samples:
    """Replicate scores of one board.

    Attributes:
        scores: source -> backbone -> (R,). left_out: (source, backbone) -> reason. notes: of the board, including `about`.
            about: source -> note to show with every comparison of it.
    """

    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    left_out: Mapping[tuple[str, str], str]
    notes: tuple[str, ...] = ()
    judged: bool = True  # false if the protocol is too short for a ranking
    runs: pd.DataFrame = field(default_factory=pd.DataFrame)  # rows behind the scores
    touched: Mapping[str, frozenset[str]] = field(default_factory=dict)  # source -> test images that it has seen
    about: Mapping[str, str] = field(default_factory=dict)
    test_split: str = TEST
    schedule_kind: str = TUNED
    scored: frozenset[str] = frozenset()  # all test images, if a source has seen some
    rescore: Callable[[str, str, frozenset[str]], tuple[float, ...]] | None = (
        None  # source, backbone, excluded images -> (R,)
    )
    oracles: frozenset[str] = frozenset()  # sources that are compared and never ranked
    metric: str | None = None  # name, if it is one of METRICS
    root: Path | None = None  # of the store with the evidence

    def left_out_notes(self, *only: str) -> list[str]:
        """Return a note for each reason, with the cells that it left out. only: of these sources."""
        cells: dict[str, list[str]] = {}
        for (source, backbone), why in self.left_out.items():
            if not only or source in only:
                cells.setdefault(why, []).append(f"{source} x {backbone}")
        return [f"left out, {', '.join(names)}: {why}" for why, names in cells.items()]

    def pair(self, a: str, b: str, backbone: str | None = None) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """Return (scores of a, scores of b) per common backbone, without test images that either source has seen."""
        names, seen = self.common(a, b, backbone), self.seen(a, b)
        if not seen or self.rescore is None:
            return [(self.scores[a][name], self.scores[b][name]) for name in names]
        return [(self.rescore(a, name, seen), self.rescore(b, name, seen)) for name in names]

    def seen(self, a: str, b: str) -> frozenset[str]:
        """Return the test images that either source has seen."""
        return self.touched.get(a, frozenset()) | self.touched.get(b, frozenset())

    def clean_share(self, a: str, b: str) -> float:
        """Return the share of test images that neither source has seen."""
        seen = self.seen(a, b)
        return 1 - len(seen & self.scored) / len(self.scored) if seen and self.scored else 1.0

    def common(self, a: str, b: str, backbone: str | None = None) -> list[str]:
        """Return the common backbones; none if the two sources have seen too many test images."""
        if self.clean_share(a, b) < LEAST_CLEAN:
            return []
        names = sorted(self.scores.get(a, {}).keys() & self.scores.get(b, {}).keys())
        return [name for name in names if backbone in (None, name)]


def samples(runs: pd.DataFrame, metric: Metric = "miou", cells: pd.DataFrame | None = None) -> Samples:
    """Collect the replicate scores of the comparable cells.

    runs: rows of one board. metric: a column, or a function from row to score (NaN: absent). cells: `results.board.board(runs)`,
    if already computed.

    Raises:
        UnanswerableError: the metric is unknown.
    """
    if isinstance(metric, str) and metric not in METRICS:
        raise UnanswerableError(f"unknown metric '{metric}'; known: {', '.join(METRICS)}")
    cells = board(runs) if cells is None else cells
    oracle = cells["leak"].map(is_oracle).astype(bool)
    count = (cells["status"] == "ok") & (cells["leak"].isna() | oracle)
    good, first = cells[count], cells.iloc[0]
    rows = runs[(runs["status"] == "ok") & runs["cell"].isin(good["cell"])]
    rows = rows.sort_values(["source", "backbone", "replicate"])
    scores, incomplete = _scores(rows, metric)
    left_out = _left_out(cells[~count])
    if isinstance(metric, str):
        left_out |= dict.fromkeys(incomplete, f"a run has no {METRICS[metric]}")
    leaks, root = runs.attrs.get("known_leaks", KnownLeaks()), runs.attrs.get("root")
    split = str(first["test_split"])  # only `test` is searched for leaks
    data = str(first["target_hash"])
    seen = {source: ids for source in scores if split == TEST and (ids := leaks.ids(data, source))}
    scored = frozenset[str]() if not seen or root is None else scored_images(Path(str(root)), rows.iloc[0].to_dict())
    oracles = frozenset(map(str, cells.loc[count & oracle, "source"]))
    about = _about(good, seen, scored, _leak_notes(leaks, data, split, scores))
    place = None if root is None else Path(str(root))
    rescore = None if place is None else functools.partial(_rescore, place, rows, metric)
    notes = (*_board_notes(first, runs.attrs), *about.values())
    kind, name = str(first["schedule_kind"]), metric if isinstance(metric, str) else None
    judged = bool(first["ranked"])
    return Samples(
        scores, left_out, notes, judged, rows, seen, about, split, kind, scored, rescore, oracles, name, place
    )


def _scores(
    rows: pd.DataFrame, metric: Metric
) -> tuple[dict[str, dict[str, tuple[float, ...]]], list[tuple[str, str]]]:
    """Return (source -> backbone -> (R,) scores, cells in which a run has no score)."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows.to_dict("records"):
        scores.setdefault(row["source"], {}).setdefault(row["backbone"], []).append(_value(row, metric))
    whole = {
        source: {backbone: tuple(values) for backbone, values in by.items() if not np.isnan(values).any()}
        for source, by in scores.items()
    }
    return whole, [
        (source, backbone) for source, by in scores.items() for backbone in by if backbone not in whole[source]
    ]


def _rescore(
    root: Path, rows: pd.DataFrame, metric: Metric, source: str, backbone: str, images: frozenset[str]
) -> tuple[float, ...]:
    """Return (R,) scores of a cell without some test images."""
    of_cell = rows[(rows["source"] == source) & (rows["backbone"] == backbone)]
    try:
        return tuple(_value(clean_row(root, row, images), metric) for row in of_cell.to_dict("records"))
    except ValueError as error:
        raise UnanswerableError(
            f"'{source}' cannot be compared without the test images that have been seen: {error}"
        ) from error


def _left_out(cells: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return (source, backbone) -> reason for leaving it out."""
    reasons: dict[tuple[str, str], str] = {}
    for cell in cells[cells["status"] != "stale"].to_dict("records"):
        why = cell["leak"] if pd.notna(cell["leak"]) else f"{cell['status']}: {cell['reason']}"
        reasons[str(cell["source"]), str(cell["backbone"])] = str(why)
    return reasons


def _board_notes(first: "pd.Series[Any]", attrs: Mapping[Hashable, Any]) -> list[str]:
    """Return the notes on a board. first: one of its cells. attrs: of the table of its runs."""
    notes = [f"{first['target']}, {first['protocol']}{board_words(first.to_dict())}: {first['label_note']}"]
    notes += board_marks(first.to_dict())
    notes += attrs.get("notes", ())
    unreadable = len(attrs.get("unreadable", ()))
    return notes + ([f"{unreadable} records or submissions are left out; see `bench table`"] if unreadable else [])


def _about(
    good: pd.DataFrame, seen: Mapping[str, frozenset[str]], scored: frozenset[str], leaks: Mapping[str, str]
) -> dict[str, str]:
    """Return source -> note. good: comparable cells. seen, scored: test images. leaks: notes of `_leak_notes`."""
    submitted = good.dropna(subset="badge").drop_duplicates("source").set_index("source")["badge"]
    about = {str(source): f"{source} was submitted, not measured here ({badge})" for source, badge in submitted.items()}
    more = {source: _seen(source, ids & scored, len(scored)) for source, ids in seen.items()}
    more |= leaks
    for source, leak in good.dropna(subset="leak").drop_duplicates("source").set_index("source")["leak"].items():
        more[str(source)] = "; ".join(filter(None, (more.get(str(source)), leak_note(str(source), str(leak)))))
    for cell in good.dropna(subset="reason").to_dict("records"):  # comparable, and yet with a remark
        remark = f"{cell['source']} x {cell['backbone']}: {cell['reason']}"
        more[str(cell["source"])] = "; ".join(filter(None, (more.get(str(cell["source"])), remark)))
    return about | {
        source: f"{about[source]}; {note}" if source in about else note for source, note in sorted(more.items())
    }


def _leak_notes(leaks: KnownLeaks, target_hash: str, split: str, sources: Iterable[str]) -> dict[str, str]:
    """Return source -> note on a leak that leaves no image out: it is only declared, or is of `test` and not of this split."""
    said = {source: leaks.said_share(target_hash, source) for source in sources}
    notes = {source: known_leaks.unproven(source, share) for source, share in said.items() if share}
    found = {source: leaks.share(target_hash, source) for source in said if split != TEST}
    return notes | {source: known_leaks.unsearched(source, share, split) for source, share in found.items() if share}


def _seen(source: str, ids: frozenset[str], count: int) -> str:
    return (
        f"{source} has seen {len(ids)} of {count} test images ({len(ids) / count:.1%}): pairs are compared on the other images, "
        f"and only if at least {LEAST_CLEAN:.0%} are left"
    )


def _value(row: Mapping[Any, Any], metric: Metric) -> float:
    return float(row[metric] if isinstance(metric, str) else metric(row))


def find_source(data: Samples, name: str) -> str:
    """Return the name if the source has a comparable cell.

    Raises:
        UnanswerableError: it has none; the message says why.
    """
    if data.scores.get(name):
        return name
    reasons = {f"{backbone}: {why}" for (source, backbone), why in data.left_out.items() if source == name}
    if reasons:
        raise UnanswerableError(f"no cell of '{name}' can be compared: {'; '.join(sorted(reasons))}")
    raise UnanswerableError(f"no runs of '{name}' on this board; available: {', '.join(sorted(data.scores)) or 'none'}")
