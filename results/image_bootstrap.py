"""Bootstrap interval of a difference over groups of test images; separate from the interval over replicates.

Images of one flight or sequence are not independent, so whole groups are resampled. Each bootstrap sample scores every run of
both sources on the same images.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results import stats
from results.evidence import Evidence
from results.evidence_files import EvidenceKey
from results.known_leaks import without
from results.replicate_scores import Samples
from results.stats import Floats, Interval
from results.store import Store

T = TypeVar("T")
DRAWS = 2000
LEAST_GROUPS = 5  # too few to resample below this


@dataclass(frozen=True)
class Counts:
    """Sufficient statistics of a run's scores, summed per group of test images. G groups, K classes.

    Attributes:
        groups: (G,) names. hit, truth, predicted: (G, K) pixels. weighted_f: (G, K) sums over the images that contain the class;
            containing: (G, K) number of such images. images: (N,) ids, sorted.
    """

    groups: tuple[str, ...]
    hit: Floats
    truth: Floats
    predicted: Floats
    weighted_f: Floats
    containing: Floats
    images: tuple[str, ...]

    def draws(self, weights: Floats, metric: str) -> Floats:
        """Return (D,) scores on bootstrap samples; NaN if a sample contains no class. weights: (D, G)."""
        if metric == "miou":
            hit, truth, predicted = weights @ self.hit, weights @ self.truth, weights @ self.predicted
            values, there = hit / np.maximum(truth + predicted - hit, 1), truth > 0
        else:
            containing = weights @ self.containing
            values, there = (weights @ self.weighted_f) / np.maximum(containing, 1), containing > 0
        count = there.sum(1)
        return np.where(count > 0, np.where(there, values, 0).sum(1) / np.maximum(count, 1), np.nan)


def counts(evidence: Evidence) -> Counts:
    """Sum the evidence of a run per group."""
    names, places = np.unique(evidence.groups, return_inverse=True)
    there = ~np.isnan(evidence.weighted_f)
    confusion = evidence.confusion.astype(np.float64)
    parts = (
        np.diagonal(confusion, axis1=1, axis2=2),
        confusion.sum(2),
        confusion.sum(1),
        np.where(there, evidence.weighted_f, 0),
        there,
    )
    sums = []
    for part in parts:
        total = np.zeros((len(names), part.shape[1]))
        np.add.at(total, places, part)
        sums.append(total)
    hit, truth, predicted, weighted_f, containing = sums
    images = tuple(sorted(evidence.image_ids.tolist()))
    return Counts(tuple(names.tolist()), hit, truth, predicted, weighted_f, containing, images)


def interval(
    store: Store, data: Samples, a: str, b: str, metric: str, backbone: str | None
) -> tuple[tuple[float | None, float | None], str]:
    """Return ((low, high) of a - b over groups of test images, a note), on one backbone or pooled over the common ones.

    Raises:
        StoreError: the evidence of a run does not match its record.
    """
    seen = data.seen(a, b)
    pairs = [
        (_runs_of(store, data, a, name, _counts, seen), _runs_of(store, data, b, name, _counts, seen))
        for name in data.common(a, b, backbone)
    ]
    try:
        result = over_groups(pairs, metric)
    except ValueError as error:
        result = Interval(None, None, str(error))
    count, groups = len(pairs[0][0][0].images), len(pairs[0][0][0].groups)
    alone = " (one image per group: images are assumed independent)" if groups == count else ""
    note = (
        result.why_not or f"Over images: bootstrap of {groups} groups of {count} test images, for these models{alone}."
    )
    return (result.low, result.high), note


def image_differences(store: Store, data: Samples, a: str, b: str, backbone: str | None = None) -> pd.DataFrame:
    """Return the mIoU of `a` and `b` on each test image, averaged over runs.

    Columns: image, group, a, b, difference; largest absolute difference first.
    """
    frames, seen = [], data.seen(a, b)
    for name in data.common(a, b, backbone):
        sides = {s: _runs_of(store, data, source, name, _image_scores, seen) for s, source in (("a", a), ("b", b))}
        frames.append(pd.concat([pd.concat(runs).assign(side=side) for side, runs in sides.items()]))
    scores = pd.concat(frames).groupby(["image", "group", "side"])["score"].mean().unstack().reset_index()
    scores["difference"] = scores["a"] - scores["b"]
    order = scores["difference"].abs().sort_values(ascending=False, kind="stable").index
    return scores.loc[order].reset_index(drop=True).rename_axis(columns=None)


def _runs_of(
    store: Store,
    data: Samples,
    source: str,
    backbone: str,
    of: Callable[[EvidenceKey, frozenset[str]], T],
    seen: frozenset[str],
) -> list[T]:
    """Apply `of` to the evidence of each run, without the test images in `seen`."""
    runs = data.runs[(data.runs["source"] == source) & (data.runs["backbone"] == backbone)]
    return [of(EvidenceKey.of_row(store, row), seen) for row in runs.to_dict("records")]


@functools.lru_cache(maxsize=512)
def _counts(key: EvidenceKey, seen: frozenset[str]) -> Counts:
    return counts(_evidence(key, seen))


@functools.lru_cache(maxsize=64)
def _image_scores(key: EvidenceKey, seen: frozenset[str]) -> pd.DataFrame:
    evidence = _evidence(key, seen)
    hit = np.diagonal(evidence.confusion, axis1=1, axis2=2).astype(float)
    truth, predicted = evidence.confusion.sum(2), evidence.confusion.sum(1)
    values = np.where(truth > 0, hit / np.maximum(truth + predicted - hit, 1), 0).sum(1) / (truth > 0).sum(1)
    return pd.DataFrame({"image": evidence.image_ids, "group": evidence.groups, "score": values})


def _evidence(key: EvidenceKey, seen: frozenset[str]) -> Evidence:
    evidence = key.read()
    return without(evidence, seen) if seen else evidence


def over_groups(
    pairs: Sequence[tuple[Sequence[Counts], Sequence[Counts]]], metric: str, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """Return the percentile interval of first minus second over groups of test images, for fixed models.

    pairs: the runs of both sources on each backbone.

    Raises:
        ValueError: the runs were not scored on the same images, groups and classes.
    """
    runs = [run for pair in pairs for side in pair for run in side]
    first = runs[0]
    for run in runs:
        same = run.images == first.images and run.groups == first.groups and run.hit.shape == first.hit.shape
        if not same or (run.truth != first.truth).any():
            raise ValueError(
                "No interval over images: the runs were not scored on the same images, groups, classes and labels"
            )
    if len(first.groups) < LEAST_GROUPS:
        return Interval(None, None, f"No interval over images: {len(first.groups)} groups are too few for a bootstrap")
    weights = stats.resample(len(first.groups), draws, np.random.default_rng(seed))
    differences: NDArray[np.float64] = np.mean(
        [_mean(side_a, weights, metric) - _mean(side_b, weights, metric) for side_a, side_b in pairs], axis=0
    )
    if np.ptp(differences) == 0:
        return Interval(None, None, "No interval over images: the difference is the same in every bootstrap sample")
    return Interval(*stats.percentiles(differences, len(first.groups)))


def _mean(runs: Sequence[Counts], weights: Floats, metric: str) -> Floats:
    total: Floats = np.mean([run.draws(weights, metric) for run in runs], axis=0)
    return total
