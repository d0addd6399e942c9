"""Graph-based segments as masks (Felzenszwalb & Huttenlocher, IJCV 2004): a teacher without learning.

The counterparts of SAM's two scores, both in [0, 1]:

    predicted_iou  C / (C + S) * A / (A + 6 P): contrast to the surroundings, and a penalty for the border, where segments are
                   inaccurate: specks, slivers and ragged shapes score lower. C: |mean inside - mean of the ring just outside|;
                   S: standard deviation inside, in grey levels; A: area; P: length of the border, in pixel edges.
    stability      the best IoU with a segment of the next smaller or larger scale: how little the segment changes with the
                   scale. A single scale is compared with its double.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from pretrain_sources.recipe import FelzenszwalbTeacher
from pretrain_sources.teachers.contract import Masks, Teacher

# Offsets to the ring, (down, right) in pixels, in both directions: just beyond the blur of a thermal edge.
STEPS = ((0, 3), (3, 0), (2, 2), (2, -2))

BORDER_PX = 6.0  # pixels that count as uncertain for each edge of the border

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def open_teacher(settings: FelzenszwalbTeacher, weights: Path, device: str = "cpu") -> Teacher:
    """Open the teacher. There are no weights, and it always computes on the CPU."""

    def draw(image: NDArray[np.uint8]) -> Masks:
        return _masks(image, settings)

    return draw


def _masks(image: NDArray[np.uint8], settings: FelzenszwalbTeacher) -> Masks:
    """Segment an image (H, W); return masks by falling predicted_iou; ties: the finer scale, then the upper segment."""
    scales = sorted(set(settings.scales))
    compared = scales if len(scales) > 1 else [scales[0], 2 * scales[0]]
    maps = _segment(image, compared, settings)
    stability = _stability(maps)
    maps = maps[: len(scales)]
    score = _scores(image, maps)
    ranked = np.argsort(-score, kind="stable")
    chosen = _suppress(maps, ranked, settings.nms_thresh)
    return Masks(
        masks=_draw(maps, chosen),
        predicted_iou=score[chosen].astype(np.float32),
        stability=stability[chosen].astype(np.float32),
        prompts=((),) * len(chosen),
    )


def _segment(image: NDArray[np.uint8], scales: list[float], settings: FelzenszwalbTeacher) -> Ints:
    """Return segment numbers (S, H, W) from 0, unique across scales, in the order of their first pixels.

    For an image in 0..1 the library divides `scale` by 255: it is the k of the paper, whose images are in 0..255.
    """
    maps = np.empty((len(scales), *image.shape), np.int64)
    used = 0
    for segments, scale in zip(maps, scales, strict=True):
        numbers = felzenszwalb(
            image / 255, scale=scale, sigma=settings.sigma, min_size=settings.min_size, channel_axis=None
        )
        segments[:] = numbers + used
        used += numbers.max() + 1
    return maps


def _overlaps(a: Ints, b: Ints) -> tuple[Ints, Ints, Floats]:
    """Return the overlapping segments of two maps (H, W): their numbers in a and in b, and their IoU, each (P,)."""
    area_a, area_b = np.bincount(a.ravel()), np.bincount(b.ravel())
    pairs, shared = np.unique(a.ravel() * len(area_b) + b.ravel(), return_counts=True)
    i, j = np.divmod(pairs, len(area_b))
    return i, j, shared / (area_a[i] + area_b[j] - shared)


def _stability(maps: Ints) -> Floats:
    """Return the best IoU of each segment with one of a neighbouring map, (N,)."""
    best = np.zeros(maps.max() + 1)
    for finer, coarser in pairwise(maps):
        i, j, iou = _overlaps(finer, coarser)
        np.maximum.at(best, i, iou)
        np.maximum.at(best, j, iou)
    return best


def _scores(image: NDArray[np.uint8], maps: Ints) -> Floats:
    """Return predicted_iou of each segment, (N,)."""
    grey = np.broadcast_to(image.astype(np.float64), maps.shape)
    area, mean, spread = _moments([(maps.ravel(), grey.ravel())], int(maps.max()) + 1)
    ring_area, ring_mean, _ = _moments(_rings(maps, grey), len(area))
    contrast = np.abs(mean - ring_mean) * (ring_area > 0)
    relative_contrast = contrast / np.maximum(contrast + spread, 1e-9)
    return relative_contrast * area / (area + BORDER_PX * _borders(maps, len(area)))


def _borders(maps: Ints, n: int) -> Floats:
    """Count the edges between pixels of a segment and neighbours outside of it, (n,), without the image border."""
    edges = np.zeros(n)
    for inside, outside in (*_both_ways(0, 1), *_both_ways(1, 0)):
        edges += np.bincount(maps[inside][maps[inside] != maps[outside]], minlength=n)
    return edges


def _rings(maps: Ints, grey: Floats) -> Iterator[tuple[Ints, Floats]]:
    """Yield segment numbers and the grey levels of their rings; a pixel is repeated for each step that reaches it."""
    for down, right in STEPS:
        for inside, outside in _both_ways(down, right):
            border = maps[inside] != maps[outside]
            yield maps[inside][border], grey[outside][border]


def _moments(samples: Iterable[tuple[Ints, Floats]], n: int) -> tuple[Floats, Floats, Floats]:
    """Return count, mean and standard deviation of the grey levels of each number 0..n-1; 0 for numbers without samples."""
    count, total, squares = np.zeros((3, n))
    for number, grey in samples:
        count += np.bincount(number, minlength=n)
        total += np.bincount(number, grey, n)
        squares += np.bincount(number, grey**2, n)
    mean = total / np.maximum(count, 1)
    return count, mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))


def _both_ways(down: int, right: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return pairs of slices of (..., H, W) that are one step apart: forwards, then backwards."""
    upper, lower = slice(None, -down or None), slice(down, None)
    left_part, right_part = slice(None, -abs(right) or None), slice(abs(right), None)
    if right < 0:
        left_part, right_part = right_part, left_part
    here, there = (..., upper, left_part), (..., lower, right_part)
    return (here, there), (there, here)


def _suppress(maps: Ints, ranked: Ints, threshold: float) -> Ints:
    """Drop ranked segments whose IoU with a better, kept segment is above the threshold (non-maximum suppression)."""
    rank = np.argsort(ranked)
    doubles = []
    for a, b in combinations(maps, 2):
        i, j, iou = _overlaps(a, b)
        doubles += np.sort(rank[np.stack([i, j], axis=1)[iou > threshold]], axis=1).tolist()
    keep = np.ones(len(ranked), bool)
    for better, worse in sorted(doubles):
        keep[worse] &= not keep[better]
    return ranked[keep]


def _draw(maps: Ints, chosen: Ints) -> NDArray[np.bool_]:
    """Return the chosen segments as masks (N, H, W)."""
    row = np.full(maps.max() + 1, -1)
    row[chosen] = np.arange(len(chosen))
    masks = np.zeros((len(chosen), *maps.shape[1:]), bool)
    for segments in maps:
        mask = row[segments]
        y, x = np.nonzero(mask >= 0)
        masks[mask[y, x], y, x] = True
    return masks
