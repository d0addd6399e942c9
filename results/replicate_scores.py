"""Replicate scores of the cells that count on one board, and what must be said of them wherever they are compared.

What counts are cells that are whole: every replicate there and ok, the newest identity of its name, no source that is marked as a
leak. Test images that one of a pair has seen are left out of that pair.
"""

import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results import known_leaks
from results.board import board
from results.board_choice import UnanswerableError
from results.known_leaks import LEAST_CLEAN, KnownLeaks, clean_row, scored_images

METRICS = {"miou": "mIoU", "weighted_f": "weighted F-measure"}
Metric = str | Callable[[Any], float]  # a column of a run, or what makes a score of its row; NaN: absent


@dataclass(frozen=True)
class Samples:
    """Replicate scores of one board.

    Attributes:
        scores: source -> backbone -> (R,). left_out: (source, backbone) -> why a cell does not count. notes: of the board, with
            what is in `about`: source -> what must be said wherever it is compared.
    """

    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    left_out: Mapping[tuple[str, str], str]
    notes: tuple[str, ...] = ()
    judged: bool = True  # false for a board whose protocol is too short to rank anything
    runs: pd.DataFrame = field(default_factory=pd.DataFrame)  # the rows that the scores are from
    touched: Mapping[str, frozenset[str]] = field(default_factory=dict)  # source -> test images that it has seen
    about: Mapping[str, str] = field(default_factory=dict)
    scored: frozenset[str] = frozenset()  # the test images, where a source has seen some
    rescore: Callable[[str, str, frozenset[str]], tuple[float, ...]] | None = (
        None  # source, backbone, images left out -> (R,)
    )

    def pair(self, a: str, b: str, backbone: str | None = None) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """Their scores on the backbones (or the one) that both were measured on, without test images that one of them has seen."""
        names, seen = self.common(a, b, backbone), self.seen(a, b)
        if not seen or self.rescore is None:
            return [(self.scores[a][name], self.scores[b][name]) for name in names]
        return [(self.rescore(a, name, seen), self.rescore(b, name, seen)) for name in names]

    def seen(self, a: str, b: str) -> frozenset[str]:
        """The test images that one of the two has seen."""
        return self.touched.get(a, frozenset()) | self.touched.get(b, frozenset())

    def clean_share(self, a: str, b: str) -> float:
        """Of the test images that neither has seen."""
        seen = self.seen(a, b)
        return 1 - len(seen & self.scored) / len(self.scored) if seen and self.scored else 1.0

    def common(self, a: str, b: str, backbone: str | None = None) -> list[str]:
        """The backbones that both were measured on; none where they have seen too much of the test to be judged."""
        if self.clean_share(a, b) < LEAST_CLEAN:
            return []
        names = sorted(self.scores.get(a, {}).keys() & self.scores.get(b, {}).keys())
        return [name for name in names if backbone in (None, name)]


def samples(runs: pd.DataFrame, metric: Metric = "miou", cells: pd.DataFrame | None = None) -> Samples:
    """The replicate scores of the cells that count.

    runs: rows of one board. metric: a column, or of a row (NaN: absent). cells: `results.board.board(runs)`, if it is known.

    Raises:
        UnanswerableError: there is no such metric.
    """
    if isinstance(metric, str) and metric not in METRICS:
        raise UnanswerableError(f"unknown metric '{metric}'; known: {', '.join(METRICS)}")
    cells = board(runs) if cells is None else cells
    count = (cells["status"] == "ok") & cells["leak"].isna()
    good, first = cells[count], cells.iloc[0]
    rows = runs[(runs["status"] == "ok") & runs["cell"].isin(good["cell"])]
    rows = rows.sort_values(["source", "backbone", "replicate"])
    scores, torn = _scores(rows, metric)
    left_out = _left_out(cells[~count])
    if isinstance(metric, str):
        left_out |= dict.fromkeys(torn, f"one of its runs has no {METRICS[metric]}")
    leaks, root = runs.attrs.get("known_leaks", KnownLeaks()), runs.attrs.get("root")
    seen = {source: ids for source in scores if (ids := leaks.ids(str(first["target_hash"]), source))}
    scored = frozenset[str]() if not seen or root is None else scored_images(Path(str(root)), rows.iloc[0].to_dict())
    unproven = {source: leaks.said_share(str(first["target_hash"]), source) for source in scores if source not in seen}
    about = _about(good, seen, scored, unproven)
    rescore = None if root is None else functools.partial(_rescore, Path(str(root)), rows, metric)
    notes = (*_board_notes(first, runs.attrs), *about.values())
    return Samples(scores, left_out, notes, bool(first["ranked"]), rows, seen, about, scored, rescore)


def _scores(
    rows: pd.DataFrame, metric: Metric
) -> tuple[dict[str, dict[str, tuple[float, ...]]], list[tuple[str, str]]]:
    """(source -> backbone -> (R,) scores; (source, backbone) of the cells of which a run has none)."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows.to_dict("records"):
        found.setdefault(row["source"], {}).setdefault(row["backbone"], []).append(_value(row, metric))
    whole = {
        source: {backbone: tuple(values) for backbone, values in by.items() if not np.isnan(values).any()}
        for source, by in found.items()
    }
    return whole, [
        (source, backbone) for source, by in found.items() for backbone in by if backbone not in whole[source]
    ]


def _rescore(
    root: Path, rows: pd.DataFrame, metric: Metric, source: str, backbone: str, images: frozenset[str]
) -> tuple[float, ...]:
    """(R,) scores of a cell without some test images."""
    of_cell = rows[(rows["source"] == source) & (rows["backbone"] == backbone)]
    try:
        return tuple(_value(clean_row(root, row, images), metric) for row in of_cell.to_dict("records"))
    except ValueError as error:
        raise UnanswerableError(
            f"nothing is left of the test without what '{source}' is compared without: {error}"
        ) from error


def _left_out(cells: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(source, backbone) -> why it does not count."""
    found: dict[tuple[str, str], str] = {}
    for cell in cells[cells["status"] != "stale"].to_dict("records"):
        why = cell["leak"] if pd.notna(cell["leak"]) else f"{cell['status']}: {cell['reason']}"
        found[str(cell["source"]), str(cell["backbone"])] = str(why)
    return found


def _board_notes(first: "pd.Series[Any]", attrs: Mapping[Hashable, Any]) -> list[str]:
    """What must be said of a board. first: one of its cells. attrs: of the table of its runs."""
    notes = [f"{first['target']}, {first['protocol']}: {first['label_note']}"]
    notes += [] if first["ranked"] else ["TOO SHORT TO RANK ANYTHING: this only shows that every part works."]
    notes += ["SELECTED ON TEST, like its peers."] if first["selected_on_test"] else []
    notes += attrs.get("notes", ())
    unreadable = len(attrs.get("unreadable", ()))
    return notes + (
        [f"{unreadable} records or submissions are left out; `bench table` names them"] if unreadable else []
    )


def _about(
    good: pd.DataFrame, seen: Mapping[str, frozenset[str]], scored: frozenset[str], unproven: Mapping[str, float | None]
) -> dict[str, str]:
    """Source -> what must be said of it. good: cells that count. seen, scored: test images. unproven: share that a bundle names."""
    brought = good.dropna(subset="badge").drop_duplicates("source").set_index("source")["badge"]
    about = {str(source): f"{source} was submitted, not measured here ({badge})" for source, badge in brought.items()}
    more = {source: _seen(source, ids & scored, len(scored)) for source, ids in seen.items()}
    more |= {source: known_leaks.unproven(source, share) for source, share in unproven.items() if share}
    return about | {
        source: f"{about[source]}; {told}" if source in about else told for source, told in sorted(more.items())
    }


def _seen(source: str, ids: frozenset[str], count: int) -> str:
    return (
        f"{source} has seen {len(ids)} of {count} test images ({len(ids) / count:.1%}): its pairs are compared on the others, "
        f"and not at all where fewer than {LEAST_CLEAN:.0%} are left"
    )


def _value(row: Mapping[Any, Any], metric: Metric) -> float:
    return float(row[metric] if isinstance(metric, str) else metric(row))


def find_source(found: Samples, name: str) -> str:
    """The name, if a cell of it counts.

    Raises:
        UnanswerableError: none does, with the reason.
    """
    if found.scores.get(name):
        return name
    whys = {f"{backbone}: {why}" for (source, backbone), why in found.left_out.items() if source == name}
    if whys:
        raise UnanswerableError(f"no cell of '{name}' can be compared: {'; '.join(sorted(whys))}")
    raise UnanswerableError(
        f"no runs of '{name}' on this board; there are: {', '.join(sorted(found.scores)) or 'none'}"
    )
