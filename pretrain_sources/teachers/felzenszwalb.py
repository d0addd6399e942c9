"""Graph-based segments as masks (Felzenszwalb & Huttenlocher, IJCV 2004): a teacher that has learnt nothing.

SAM's two opinions of a mask get quantities of the same meaning, both in [0, 1]:

    predicted_iou  C / (C + S) * A / (A + 6 P): how well a segment stands out, and how little of it is border, where
                   segments err: specks, slivers and ragged shapes get less. C: |mean inside - mean of the ring just outside|;
                   S: the standard deviation inside, in grey levels; A: area; P: length of the border, in pixel edges.
    stability      the best IoU with a segment of the next scale up or down: how little the segment changes with the
                   threshold that made it. A single scale is compared with its double.
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

# From a pixel to one of the ring, (down, right) in pixels and the same backwards: just beyond the blur of a thermal edge.
STEPS = ((0, 3), (3, 0), (2, 2), (2, -2))

BORDER_PX = 6.0  # pixels that count as doubtful for each edge of the border

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def open_teacher(settings: FelzenszwalbTeacher, weights: Path) -> Teacher:
    """The teacher, ready to be asked. `weights` is not used: there are none."""

    def ask(image: NDArray[np.uint8]) -> Masks:
        return _ask(image, settings)

    return ask


def _ask(image: NDArray[np.uint8], settings: FelzenszwalbTeacher) -> Masks:
    """(H, W) to masks with the highest predicted_iou first; ties: the finer scale, then the segment higher up."""
    scales = sorted(set(settings.scales))
    compared = scales if len(scales) > 1 else [scales[0], 2 * scales[0]]
    maps = _segment(image, compared, settings)
    stability = _stability(maps)
    maps = maps[: len(scales)]
    score = _standing_out(image, maps)
    ranked = np.argsort(-score, kind="stable")
    chosen = _without_doubles(maps, ranked, settings.nms_thresh)
    return Masks(
        masks=_draw(maps, chosen),
        predicted_iou=score[chosen].astype(np.float32),
        stability=stability[chosen].astype(np.float32),
        prompts=((),) * len(chosen),
    )


def _segment(image: NDArray[np.uint8], scales: list[float], settings: FelzenszwalbTeacher) -> Ints:
    """Segment numbers (S, H, W) from 0, each used in one scale only, in the order of their first pixels.

    For an image in 0..1 the library divides `scale` by 255: it is the k of the paper, whose images are in 0..255.
    """
    maps = np.empty((len(scales), *image.shape), np.int64)
    used = 0
    for segments, scale in zip(maps, scales, strict=True):
        found = felzenszwalb(
            image / 255, scale=scale, sigma=settings.sigma, min_size=settings.min_size, channel_axis=None
        )
        segments[:] = found + used
        used += found.max() + 1
    return maps


def _overlaps(a: Ints, b: Ints) -> tuple[Ints, Ints, Floats]:
    """Segments of two maps (H, W) that share pixels: their numbers in a and in b, and their IoU, each (P,)."""
    area_a, area_b = np.bincount(a.ravel()), np.bincount(b.ravel())
    pairs, shared = np.unique(a.ravel() * len(area_b) + b.ravel(), return_counts=True)
    i, j = np.divmod(pairs, len(area_b))
    return i, j, shared / (area_a[i] + area_b[j] - shared)


def _stability(maps: Ints) -> Floats:
    """The best IoU of each segment with one of a neighbouring map, (N,)."""
    best = np.zeros(maps.max() + 1)
    for finer, coarser in pairwise(maps):
        i, j, iou = _overlaps(finer, coarser)
        np.maximum.at(best, i, iou)
        np.maximum.at(best, j, iou)
    return best


def _standing_out(image: NDArray[np.uint8], maps: Ints) -> Floats:
    """predicted_iou of each segment, (N,)."""
    grey = np.broadcast_to(image.astype(np.float64), maps.shape)
    area, mean, spread = _moments([(maps.ravel(), grey.ravel())], int(maps.max()) + 1)
    ring_area, ring_mean, _ = _moments(_rings(maps, grey), len(area))
    contrast = np.abs(mean - ring_mean) * (ring_area > 0)
    stands_out = contrast / np.maximum(contrast + spread, 1e-9)
    return stands_out * area / (area + BORDER_PX * _borders(maps, len(area)))


def _borders(maps: Ints, n: int) -> Floats:
    """Edges between a pixel of the segment and a neighbour outside of it, (n,); the frame's own edge is none."""
    edges = np.zeros(n)
    for inside, outside in (*_both_ways(0, 1), *_both_ways(1, 0)):
        edges += np.bincount(maps[inside][maps[inside] != maps[outside]], minlength=n)
    return edges


def _rings(maps: Ints, grey: Floats) -> Iterator[tuple[Ints, Floats]]:
    """Segment numbers and the grey levels a step outside those segments; a pixel comes once for each step that meets it."""
    for down, right in STEPS:
        for inside, outside in _both_ways(down, right):
            border = maps[inside] != maps[outside]
            yield maps[inside][border], grey[outside][border]


def _moments(samples: Iterable[tuple[Ints, Floats]], n: int) -> tuple[Floats, Floats, Floats]:
    """Count, mean and standard deviation of the grey levels that come with each of the numbers 0..n-1; 0 where none does."""
    count, total, squares = np.zeros((3, n))
    for number, grey in samples:
        count += np.bincount(number, minlength=n)
        total += np.bincount(number, grey, n)
        squares += np.bincount(number, grey**2, n)
    mean = total / np.maximum(count, 1)
    return count, mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))


def _both_ways(down: int, right: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Slices of (..., H, W) whose pixels at the same place are one step apart: forwards, then backwards."""
    upper, lower = slice(None, -down or None), slice(down, None)
    left_part, right_part = slice(None, -abs(right) or None), slice(abs(right), None)
    if right < 0:
        left_part, right_part = right_part, left_part
    here, there = (..., upper, left_part), (..., lower, right_part)
    return (here, there), (there, here)


def _without_doubles(maps: Ints, ranked: Ints, threshold: float) -> Ints:
    """The ranked segments without those that a better one, itself kept, overlaps by more than the threshold."""
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
    """The chosen segments as masks (N, H, W)."""
    row = np.full(maps.max() + 1, -1)
    row[chosen] = np.arange(len(chosen))
    masks = np.zeros((len(chosen), *maps.shape[1:]), bool)
    for segments in maps:
        mask = row[segments]
        y, x = np.nonzero(mask >= 0)
        masks[mask[y, x], y, x] = True
    return masks
