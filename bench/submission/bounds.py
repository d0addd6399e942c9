"""Bounds of the weighted F-measure, given the confusion matrix of the same prediction: evidence outside them is forged."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from results.metrics import EPSILON, WINDOW

Floats = NDArray[np.float64]
REACH_PX = (
    61  # pixels within 3 * sqrt(2) of a pixel: those whose Et a hit can set to 0 within the window of a missed pixel
)
ROUNDING_PX = 1e-2  # of `edge` in a manifest, and of sums


class Bounds(NamedTuple):
    """Lower and upper bound of each weighted F-measure, (N, K)."""

    low: Floats
    high: Floats


def weighted_f_bounds(confusion: NDArray[np.int64], edge: Floats | None, beta_squared: float) -> Bounds:
    """Bounds of the weighted F-measure of each image and class from (N, K, K) confusion matrices, rows truth.

    edge: (N, K) of the truth, as a manifest has it; None if unknown.

    From the definition (Margolin et al., CVPR 2014; names as there), for h hits, m missed and f false pixels of a class: a hit
    adds 1 to TPw, a missed pixel 1 - EA. Without a hit, Et is 1 all over the image and 0 outside, so the missed pixels add exactly
    the parts of their windows outside the image: `edge`. A hit sets Et to 0 on at most REACH_PX pixels that count, each worth at
    most 1. A missed pixel is in its own window, so it adds at most 1 - the window's centre. A false pixel adds 1 to 2 to FPw.
    """
    truth, predicted = confusion.sum(2).astype(float), confusion.sum(1).astype(float)
    hits = np.diagonal(confusion, axis1=1, axis2=2).astype(float)
    missed, false = truth - hits, predicted - hits
    centre, corner = float(WINDOW.max() ** 2), 1 - float(WINDOW[len(WINDOW) // 2 :].sum() ** 2)
    outside_high = corner * missed if edge is None else np.minimum(edge + ROUNDING_PX, missed)
    outside_low = 0.0 if edge is None else np.maximum(edge - ROUNDING_PX - hits, 0)
    most = hits + np.minimum(missed * (1 - centre), outside_high + REACH_PX * hits)
    least = hits + np.minimum(outside_low, missed)
    return Bounds(_weighted_f(least, truth, 2 * false, beta_squared), _weighted_f(most, truth, false, beta_squared))


def _weighted_f(hit: Floats, truth: Floats, false: Floats, beta_squared: float) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = hit / truth
        precision = hit / (EPSILON + hit + false)
        values: Floats = (1 + beta_squared) * recall * precision / (EPSILON + recall + beta_squared * precision)
    return values
