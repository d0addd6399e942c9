"""Three intervals of a difference: over trainings, over test images, and over both together. Verdicts rest on the third.

Trainings and groups of images are both drawn at random and cross: every run is scored on every group (crossed random effects). The
variance over both is that over trainings (Welch's) plus that over groups (delete-one-group jackknife). Each of the two contains the
interaction of run and group, which so counts twice; the interval is a little wide for it, as Owen's pigeonhole bootstrap is (Annals
of Applied Statistics 2007). Degrees of freedom are Satterthwaite's (Biometrics 1946). Where groups nest in few larger ones, it is
too narrow: `tests/benchmarks/calibration.py` says by how much.
"""

import math
from dataclasses import dataclass
from itertools import combinations

from results import stats
from results.over_images import Cell, NoImagesError, Units, cell, counts_of, variance
from results.replicate_scores import Samples
from results.stats import Difference
from results.store import StoreError

MOST_RUNS = 400  # of a board, up to which the evidence of each is read: a second, or two
ALONE = "verdicts are over trainings alone"
DAMAGED = "the evidence of a run is missing, or is not what its record says"


@dataclass(frozen=True)
class Uncertainty:
    """A difference of two sources, or the mean of one, with three intervals.

    Attributes:
        trainings: Welch's, over replicates. images: over groups of test images, for these trained models. both: together.
        note: what groups of images there are and what follows, or why there are no intervals over images.
    """

    trainings: Difference
    images: Difference
    both: Difference
    note: str

    @property
    def judged(self) -> Difference:
        """What verdicts rest on: both together, or trainings alone where there is no interval over images."""
        return self.trainings if self.both.low is None else self.both

    def turned(self) -> "Uncertainty":
        """Return second minus first."""
        return Uncertainty(self.trainings.turned(), self.images.turned(), self.both.turned(), self.note)


def uncertain(trainings: Difference, found: tuple[float, Units] | str) -> Uncertainty:
    """Add the intervals over images. found: (variance over them, units), or why there are none."""
    if isinstance(found, str):
        none = Difference(trainings.effect, why_not=found)
        return Uncertainty(trainings, none, none, f"No interval over images: {found}; {ALONE}.")
    variance, units = found
    images = stats.t_difference(trainings.effect, math.sqrt(variance), units.count - 1)
    note = f"Over images: {units.note}."
    if trainings.standard_error is None or trainings.degrees_of_freedom is None:
        return Uncertainty(trainings, images, Difference(trainings.effect, why_not=trainings.why_not), note)
    parts = [(trainings.standard_error**2, trainings.degrees_of_freedom), (variance, units.count - 1)]
    both = stats.t_difference(trainings.effect, *stats.added(parts))
    return Uncertainty(trainings, images, both, note)


class Judge:
    """Differences between the sources of a board. The evidence of each cell is read once."""

    def __init__(self, data: Samples) -> None:
        self._data = data
        self._cells: dict[tuple[str, str, frozenset[str]], Cell] = {}

    def between(self, a: str, b: str, backbone: str | None = None) -> Uncertainty:
        """Return the difference a - b on one backbone, or pooled over the common ones, of which there must be some."""
        data = self._data
        trainings = stats.difference(data.pair(a, b, backbone))
        if (why := _no_evidence(data)) is not None:
            return uncertain(trainings, why)
        seen = data.seen(a, b)
        try:
            names = data.common(a, b, backbone)
            pairs = [(self._cell(a, name, seen), self._cell(b, name, seen)) for name in names]
            return uncertain(trainings, variance(pairs))
        except NoImagesError as error:
            return uncertain(trainings, str(error))
        except StoreError:
            return uncertain(trainings, DAMAGED)

    def _cell(self, source: str, backbone: str, seen: frozenset[str]) -> Cell:
        key = (source, backbone, seen)
        if key not in self._cells:
            self._cells[key] = cell(counts_of(self._data, source, backbone, seen), str(self._data.metric))
        return self._cells[key]

    def all_pairs(self, backbone: str | None = None) -> dict[tuple[str, str], tuple[Uncertainty, float | None]]:
        """Return (uncertainty, Holm-adjusted p) of every pair of sources, on one backbone or pooled over the common ones."""
        found = {
            (a, b): self.between(a, b, backbone)
            for a, b in combinations(sorted(self._data.scores), 2)
            if self._data.common(a, b, backbone)
        }
        tested = {key: one.judged.p for key, one in found.items() if one.judged.p is not None}
        adjusted = dict(zip(tested, stats.holm(list(tested.values())), strict=True))
        return {key: (one, adjusted.get(key)) for key, one in found.items()}


def all_pairs(data: Samples, backbone: str | None = None) -> dict[tuple[str, str], tuple[Uncertainty, float | None]]:
    """Return (uncertainty, Holm-adjusted p) of every pair of sources, on one backbone or pooled over the common ones."""
    return Judge(data).all_pairs(backbone)


def _no_evidence(data: Samples) -> str | None:
    if data.root is None or data.metric is None:
        return "there is no evidence at hand"
    if len(data.runs) > MOST_RUNS:
        return f"the board has {len(data.runs):,} runs, and the evidence of up to {MOST_RUNS} is read"
    return None
