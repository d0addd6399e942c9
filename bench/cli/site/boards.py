"""The boards of a store, one for each test split and schedule, from the same functions as `bench table`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import pandas as pd

from bench.cli.questions import View, tiers_view
from bench.cli.tables import LEARNED_NOTE, RECONSTRUCTED_NOTE, plain_rows, row_notes
from results.board import BOARD, board, constant_note
from results.cell_cost import devices_note, with_costs
from results.cell_intervals import INTERVALS_NOTE, with_intervals
from results.further import on_split, splits_of, with_further
from results.marks import board_marks, board_words
from results.record import TEST
from results.replicate_scores import METRICS, Samples, samples
from results.schedule_names import DEFAULT, TUNED
from results.tuned_against_default import PLACE, TUNED_NOTE, with_tuned
from results.tuning_gain import gain_notes
from results.uncertainty import Uncertainty, all_pairs

MOST_SOURCES = 60  # comparing all pairs of more sources takes minutes
MANY = f"Tiers and pairs are shown for up to {MOST_SOURCES} sources; use `bench table --tiers` for larger boards."


@dataclass(frozen=True)
class Ranking:
    """The sources of a board ranked by one metric. pairs: (a, b), a < b -> difference over common backbones, Holm-adjusted p."""

    metric: str
    title: str
    measured: Samples
    tiers: View
    pairs: dict[tuple[str, str], tuple[Uncertainty, float | None]]

    def against(self, source: str) -> Iterator[tuple[str, Uncertainty, float | None]]:
        """Yield (other source, source - other, Holm-adjusted p) of the pairs of a source."""
        for (a, b), (found, adjusted) in sorted(self.pairs.items(), key=str):
            if source in (a, b):
                yield (b, found, adjusted) if source == a else (a, found.turned(), adjusted)


@dataclass(frozen=True)
class SiteBoard:
    """A board. runs, cells: its rows, for all shares of the labels."""

    runs: pd.DataFrame
    cells: pd.DataFrame
    several: bool  # whether another board has the same target and protocol
    rankings: list[Ranking] = field(default_factory=list)

    @cached_property
    def first(self) -> dict[str, Any]:
        """Any run."""
        return {str(name): value for name, value in self.runs.iloc[0].items()}

    @property
    def title(self) -> str:
        """Name, with hashes if it is not unique."""
        which = f" (data {self.first['target_hash'][:6]}, settings {self.first['protocol_hash'][:6]})"
        place = f"{self.first['target']}, {self.first['protocol']}{board_words(self.first)}"
        return place + (which if self.several else "")

    @property
    def full(self) -> pd.DataFrame:
        """The runs with the largest share of the labels, which are ranked."""
        return _largest_share(self.runs)

    @property
    def full_cells(self) -> pd.DataFrame:
        """The cells with the largest share of the labels."""
        return _largest_share(self.cells)

    @property
    def marks(self) -> list[str]:
        """What holds for all scores and must stand beside them."""
        return board_marks(self.first)

    @cached_property
    def notes(self) -> list[str]:
        """Notes below the table of cells."""
        rows = plain_rows(self.cells)
        notes = [INTERVALS_NOTE + "."] if self.cells["miou_both_low"].notna().any() else []
        notes += [MANY] if self.full["source"].nunique() > MOST_SOURCES else []
        notes += [note] if (note := constant_note(self.runs)) is not None else []
        notes += [f"{note}." for note in gain_notes(rows)]
        notes += [f"{note}."] if (note := devices_note(self.runs)) is not None else []
        notes += [f"{TUNED_NOTE}."] if "tuned_minus_default" in self.cells else []
        notes += [f"{LEARNED_NOTE}."] if self.cells["heldout_miou"].notna().any() else []
        notes += [f"{RECONSTRUCTED_NOTE}."] if self.cells["heldout_loss_constant"].notna().any() else []
        return [*notes, *dict.fromkeys(row_notes(rows))]


def _largest_share(rows: pd.DataFrame) -> pd.DataFrame:
    found: pd.DataFrame = rows[rows["train_frac"] == rows["train_frac"].max()]
    return found


def boards_of(runs: pd.DataFrame) -> list[SiteBoard]:
    """Return the boards of a table, by name, the tuned schedule before the default one, `test` before further splits."""
    groups = sorted(runs.groupby(BOARD), key=lambda group: (*group[0][:-1], group[0][-1] != TUNED))
    names = [key[:2] for key, _ in runs.groupby(PLACE)]
    found = []
    for key, rows in groups:
        both = runs[(runs[PLACE] == rows[PLACE].iloc[0].tolist()).all(axis=1)]
        for split in splits_of(rows):
            found.append(_board(on_split(rows, split), on_split(both, split), names.count(key[:2]) > 1))
    return found


def _board(runs: pd.DataFrame, both: pd.DataFrame, several: bool) -> SiteBoard:
    cells = with_further(board(runs), runs) if runs["test_split"].iloc[0] == TEST else board(runs)
    cells = with_costs(with_intervals(cells, runs), runs)
    cells = with_tuned(cells, both) if (cells["schedule_kind"] == DEFAULT).all() else cells
    made = SiteBoard(runs, cells, several)
    if made.full["source"].nunique() <= MOST_SOURCES:
        made.rankings.extend(_rankings(made.full))
    return made


def _rankings(full: pd.DataFrame) -> Iterator[Ranking]:
    for metric, title in METRICS.items():
        measured = samples(full, metric)
        if measured.scores:
            yield Ranking(metric, title, measured, tiers_view(measured, metric), all_pairs(measured))


def pairs_of(ranking: Ranking) -> Iterator[tuple[str, str, Uncertainty, float | None]]:
    """Yield (a, b, a - b, Holm-adjusted p) of all pairs."""
    for a, b in combinations(sorted(ranking.measured.scores), 2):
        if (a, b) in ranking.pairs:
            yield a, b, *ranking.pairs[a, b]
