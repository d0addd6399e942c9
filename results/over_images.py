"""Uncertainty over groups of test images: what a score would be without each group.

Images of one flight or sequence are not independent, so whole groups are left out. Every run of both sources is scored on the same
images.
"""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from results.evidence import Evidence
from results.evidence_files import EvidenceKey
from results.groups import larger
from results.known_leaks import without
from results.replicate_scores import Samples
from results.stats import Floats
from results.store import Store

T = TypeVar("T")
LEAST_GROUPS = 5  # too few to say anything of others below this


class NoImagesError(ValueError):
    """No interval over images; the message says why."""


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

    def weighted(self, weights: Floats, metric: str) -> Floats:
        """Return (D,) scores with each group counted so often; NaN where no class is left. weights: (D, G)."""
        if metric == "miou":
            hit, truth, predicted = weights @ self.hit, weights @ self.truth, weights @ self.predicted
            values, there = hit / np.maximum(truth + predicted - hit, 1), truth > 0
        else:
            containing = weights @ self.containing
            values, there = (weights @ self.weighted_f) / np.maximum(containing, 1), containing > 0
        count = there.sum(1)
        return np.where(count > 0, np.where(there, values, 0).sum(1) / np.maximum(count, 1), np.nan)

    def same_images(self, other: "Counts") -> bool:
        """Return whether both runs were scored on the same images, groups, classes and labels."""
        same = self.images == other.images and self.groups == other.groups and self.hit.shape == other.hit.shape
        return same and bool((self.truth == other.truth).all())


@dataclass(frozen=True)
class Units:
    """What is taken as independent: groups of test images, or the larger groups in which they nest, if these are enough.

    Attributes:
        of_group: (G,) unit of each group. count: of units. images: number of test images. note: what follows from how they are.
    """

    of_group: tuple[int, ...]
    count: int
    images: int
    note: str


def units(counts: Counts) -> Units:
    """Choose what is taken as independent.

    Raises:
        NoImagesError: there are too few.
    """
    groups, images, above = counts.groups, len(counts.images), larger(counts.groups)
    names = groups if above is None else tuple(dict.fromkeys(above))
    if above is not None and len(names) >= LEAST_GROUPS:
        of_group = tuple(names.index(name) for name in above)
        note = f"{len(names)} larger groups of {images} test images, in which {len(groups)} groups nest"
        return Units(of_group, len(names), images, note)
    count = len(groups)
    if count < LEAST_GROUPS:
        few = "1 group of test images is" if count == 1 else f"{count} groups of test images are"
        raise NoImagesError(f"{few} too few ({LEAST_GROUPS} are needed), so what is said holds for these images")
    note = f"{count} groups of {images} test images"
    if count == images:
        note += ", one image each: images are assumed independent"
    if above is not None:
        note += (
            f"; they nest in {len(names)} larger ones and are not independent, so intervals over images are approximate "
            "and too narrow"
        )
    return Units(tuple(range(count)), count, images, note)


@dataclass(frozen=True)
class Cell:
    """A cell's runs over images: the mean score of its runs without each unit. first: counts of one of its runs."""

    first: Counts
    by: Units
    without: Floats  # (U,)


def cell(runs: Sequence[Counts], metric: str) -> Cell:
    """Leave out each unit of images.

    Raises:
        NoImagesError: there are too few groups, or the runs were not scored on the same images.
    """
    _check_same(runs)
    by = units(runs[0])
    weights = np.ones((by.count, len(by.of_group)))
    weights[list(by.of_group), range(len(by.of_group))] = 0
    return Cell(runs[0], by, np.mean([run.weighted(weights, metric) for run in runs], axis=0))


def jackknife(without: Floats) -> float:
    """Return the variance of a score over U units from (U,) scores without each: (U - 1) / U * sum (score_u - mean)^2.

    Efron and Stein, Annals of Statistics 1981.
    """
    count = len(without)
    return float((count - 1) / count * ((without - without.mean()) ** 2).sum())


def variance(pairs: Sequence[tuple[Cell, Cell | None]]) -> tuple[float, Units]:
    """Return (variance over units of test images, units) of first minus second, or of the first, mean over the backbones.

    Raises:
        NoImagesError: they were not scored on the same images, or do not vary over them.
    """
    _check_same([one.first for pair in pairs for one in pair if one is not None])
    sides = [a.without if b is None else a.without - b.without for a, b in pairs]
    found = jackknife(np.asarray(np.mean(sides, axis=0)))
    if not found > 0:
        raise NoImagesError("leaving out a group of test images changes nothing")
    return found, pairs[0][0].by


def _check_same(runs: Sequence[Counts]) -> None:
    if not all(run.same_images(runs[0]) for run in runs):
        raise NoImagesError("the runs were not scored on the same images, groups, classes and labels")


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


def image_differences(store: Store, data: Samples, a: str, b: str, backbone: str | None = None) -> pd.DataFrame:
    """Return the mIoU of `a` and `b` on each test image, averaged over runs.

    Columns: image, group, a, b, difference; largest absolute difference first.

    Raises:
        StoreError: the evidence of a run does not match its record.
    """
    frames, seen = [], data.seen(a, b)
    for name in data.common(a, b, backbone):
        sides = {s: _of_runs(store, data, source, name, _image_scores, seen) for s, source in (("a", a), ("b", b))}
        frames.append(pd.concat([pd.concat(runs).assign(side=side) for side, runs in sides.items()]))
    scores = pd.concat(frames).groupby(["image", "group", "side"])["score"].mean().unstack().reset_index()
    scores["difference"] = scores["a"] - scores["b"]
    order = scores["difference"].abs().sort_values(ascending=False, kind="stable").index
    return scores.loc[order].reset_index(drop=True).rename_axis(columns=None)


def counts_of(data: Samples, source: str, backbone: str, seen: frozenset[str] = frozenset()) -> list[Counts]:
    """Return the counts of each run of a cell, without the test images in `seen`.

    Raises:
        StoreError: the evidence of a run does not match its record.
    """
    assert data.root is not None
    return _of_runs(Store(data.root), data, source, backbone, _counts, seen)


def _of_runs(
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


def counts_of_row(root: Path, row: Mapping[Hashable, Any]) -> Counts:
    """Return the counts of a run. row: of the table of the store in `root`.

    Raises:
        StoreError: the evidence does not match the record.
    """
    return _counts(EvidenceKey.of_row(Store(root), row), frozenset())


@functools.lru_cache(maxsize=2048)
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
