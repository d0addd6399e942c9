"""The sums of the weighted F-measure, compiled.

A plain implementation processes the whole image, but few pixels matter: where prediction and truth agree, the error is zero.
Therefore distances are computed only for false positives, and smoothing only at missed pixels and within the window around
them. The paper's names: E, Et, EA, B; see `bench.score`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from results.metrics import WINDOW

Labels = NDArray[np.integer]
Rows = NDArray[np.integer]
Reals = NDArray[np.float64]

_RADIUS_PX = len(WINDOW) // 2
_HALVING = math.log(0.5) / 5.0
_NONE = 1 << 20  # distance in rows where the column has no pixel of the class; larger than any image


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function, with numba's cache on disk if possible; other threads run beside it."""
    try:
        fast: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no cache folder can be written
        fast = njit(nogil=True)(function)
    return fast


def class_sums(pred: Labels, true: Labels, num_classes: int) -> Reals:
    """Compute (K, 3) for label maps (H, W): pixels of each class, sum of Ew over them, sum of Ew over all others."""
    sums: Reals = _class_sums(pred, true, num_classes, WINDOW)
    return sums


# Loops index single rows, so that the compiler sees plain arrays and vectorises.


@_compiled
def _class_sums(pred: Labels, true: Labels, num_classes: int, kernel: Reals) -> Reals:
    height, width = true.shape
    sums = np.zeros((num_classes, 3))
    missed = np.empty((height, width), np.uint8)  # scratch, made once for all classes
    rows = np.empty((height, width), np.int32)
    blurred = np.empty((height, width))
    for k in range(num_classes):
        size = false = 0
        missed_in_row = np.zeros(height + 2 * _RADIUS_PX, np.int64)  # with empty rows above and below
        for y in range(height):
            truths, preds, misses, count = true[y], pred[y], missed[y], 0
            for x in range(width):
                misses[x] = (truths[x] == k) & (preds[x] != k)
                count += misses[x]
                size += truths[x] == k
                false += (truths[x] != k) & (preds[x] == k)
            missed_in_row[y + _RADIUS_PX] = count
        sums[k, 0] = size
        if size > 0 and (false > 0 or missed_in_row.sum() > 0):
            _rows_to_nearest(true, k, rows)
            sums[k, 1] = _missed_sum(true, k, missed, missed_in_row, rows, blurred, kernel)
            sums[k, 2] = _false_sum(pred, true, k, rows)
    return sums


@_compiled
def _rows_to_nearest(true: Labels, k: int, rows: Rows) -> None:
    """Fill (H, W) with the distance in rows to the nearest pixel of class k in the column: negative upwards; ties go up."""
    height, width = true.shape
    gaps = np.full(width, _NONE, np.int32)
    for y in range(height):
        truths, nearest = true[y], rows[y]
        for x in range(width):
            gaps[x] = np.int32(0) if truths[x] == k else np.int32(gaps[x] + 1)
            nearest[x] = -gaps[x]
    gaps[:] = _NONE
    for y in range(height - 1, -1, -1):
        truths, nearest = true[y], rows[y]
        for x in range(width):
            gaps[x] = np.int32(0) if truths[x] == k else np.int32(gaps[x] + 1)
            nearest[x] = gaps[x] if gaps[x] < -nearest[x] else nearest[x]


@_compiled
def _nearest(rows: Rows, x: int) -> tuple[np.int64, int]:
    """Find (squared distance, column) of the pixel of the class nearest to pixel x of a row of `_rows_to_nearest`.

    Of equally near pixels the leftmost counts, as in scipy's distance transform.
    """
    width = len(rows)
    least, column = np.int64(rows[x]) * np.int64(rows[x]), x
    step, last = 1, max(x, width - 1 - x)
    while step <= last and step * step <= least:
        if x >= step:
            square = np.int64(rows[x - step]) * np.int64(rows[x - step]) + step * step
            if square <= least:
                least, column = square, x - step
        if x + step < width:
            square = np.int64(rows[x + step]) * np.int64(rows[x + step]) + step * step
            if square < least:
                least, column = square, x + step
        step += 1
    return least, column


@_compiled
def _false_sum(pred: Labels, true: Labels, k: int, rows: Rows) -> float:
    """Sum B over the pixels wrongly predicted as class k."""
    total = 0.0
    for y in range(true.shape[0]):
        truths, preds, to_nearest = true[y], pred[y], rows[y]
        for x in range(len(truths)):
            if preds[x] == k and truths[x] != k:
                square, _ = _nearest(to_nearest, x)
                total += 2.0 - math.exp(_HALVING * math.sqrt(square))
    return total


@_compiled
def _missed_sum(  # noqa: C901 - one compiled pass
    true: Labels, k: int, missed: Labels, missed_in_row: Rows, rows: Rows, blurred: Reals, kernel: Reals
) -> float:
    """Sum EA over the missed pixels. (EA never exceeds E = 1 there, and E = 0 on hits.)

    `blurred` receives Et filtered along rows, where a missed pixel of the column needs it.
    """
    height, width = true.shape
    padded = np.empty(width + 2 * _RADIUS_PX, np.uint8)
    in_column = padded[_RADIUS_PX:-_RADIUS_PX]  # whether a missed pixel is at most _RADIUS_PX rows away
    near = np.empty(width, np.uint8)  # and at most as many columns
    line = np.zeros(width + 2 * _RADIUS_PX)  # Et, zero outside the image
    for y in range(height):
        first, end = max(0, y - _RADIUS_PX), min(height, y + _RADIUS_PX + 1)
        if missed_in_row[y : y + 2 * _RADIUS_PX + 1].sum() == 0:
            continue
        padded[:] = 0
        for v in range(first, end):
            if missed_in_row[v + _RADIUS_PX]:
                misses = missed[v]
                for x in range(width):
                    in_column[x] |= misses[x]
        near[:] = 0
        for shift in range(2 * _RADIUS_PX + 1):
            shifted = padded[shift : shift + width]
            for x in range(width):
                near[x] |= shifted[x]
        truths, misses, to_nearest = true[y], missed[y], rows[y]
        for x in range(width):
            if near[x] and truths[x] == k:
                line[x + _RADIUS_PX] = misses[x]
            elif near[x]:
                _, column = _nearest(to_nearest, x)
                line[x + _RADIUS_PX] = missed[y + to_nearest[column], column]
        blurs = blurred[y]
        x = 0
        while x < width:
            begin = x
            while x < width and in_column[x]:
                x += 1
            blurs[begin:x] = 0.0
            for i in range(2 * _RADIUS_PX + 1):
                for u in range(begin, x):
                    blurs[u] += kernel[i] * line[u + i]
            x += 1
    total = 0.0
    for y in range(height):
        if missed_in_row[y + _RADIUS_PX]:
            first, end, misses = max(0, y - _RADIUS_PX), min(height, y + _RADIUS_PX + 1), missed[y]
            for x in range(width):
                if misses[x]:
                    for v in range(first, end):
                        total += kernel[v - y + _RADIUS_PX] * blurred[v, x]
    return total
