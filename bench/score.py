"""Scoring one prediction against one label map: confusion matrix and weighted F-measure.

Weighted F-measure: Margolin, Zelnik-Manor, Tal, "How to Evaluate Foreground Maps?", CVPR 2014. Its use on label maps is not
published; here: one class against the rest, ignored pixels count as background without prediction, and a class that the
image's truth does not contain has no value.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Labels = NDArray[np.integer]

_SIGMA_PX = 5.0
_RADIUS_PX = 3  # a 7 x 7 window
_EPS = float(np.spacing(1))


def confusion_matrix(pred: Labels, true: Labels, num_classes: int, ignore: int = 255) -> NDArray[np.int64]:
    """(K, K) pixel counts, rows truth, for label maps (H, W); pixels whose truth is `ignore` are left out.

    Raises:
        ValueError: the shapes differ, or a label lies outside 0..K-1.
    """
    _check(pred, true, num_classes, ignore)
    valid = true != ignore
    pairs = true[valid].astype(np.int64) * num_classes + pred[valid]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def weighted_fmeasure(
    pred: Labels, true: Labels, num_classes: int, ignore: int = 255, beta_squared: float = 1.0
) -> NDArray[np.float64]:
    """(K,) weighted F-measure of each class for label maps (H, W); NaN where the class is absent from `true`.

    Raises:
        ValueError: the shapes differ, or a label lies outside 0..K-1.
    """
    _check(pred, true, num_classes, ignore)
    values = np.full(num_classes, np.nan)
    valid = true != ignore
    for k in np.unique(true[valid]):
        values[k] = _weighted_f(valid & (pred == k), true == k, beta_squared)
    return values


def _weighted_f(pred: NDArray[np.bool_], truth: NDArray[np.bool_], beta_squared: float) -> float:
    """Steps 1-7 of the paper for one non-empty foreground; E, Et, EA, M, B and Ew are the paper's names."""
    distance, nearest = ndimage.distance_transform_edt(~truth, return_indices=True)
    E = (pred != truth).astype(np.float64)
    Et = np.where(truth, E, E[nearest[0], nearest[1]])
    # the normalised 7 x 7 Gaussian is the product of two normalised rows of seven
    EA = ndimage.gaussian_filter(Et, _SIGMA_PX, radius=_RADIUS_PX, mode="constant")
    M = np.where(truth & (EA < E), EA, E)
    B = np.where(truth, 1.0, 2.0 - np.exp(np.log(0.5) / 5.0 * distance))
    Ew = M * B
    missed = Ew[truth]
    hit = truth.sum() - missed.sum()
    recall = 1.0 - missed.mean()
    precision = hit / (_EPS + hit + Ew[~truth].sum())
    return float((1 + beta_squared) * recall * precision / (_EPS + recall + beta_squared * precision))


def _check(pred: Labels, true: Labels, num_classes: int, ignore: int) -> None:
    for name, labels in (("pred", pred), ("true", true)):
        if not (isinstance(labels, np.ndarray) and np.issubdtype(labels.dtype, np.integer)):
            raise ValueError(f"{name} must be a numpy array of integers, not {getattr(labels, 'dtype', type(labels))}")
    if pred.shape != true.shape or pred.ndim != 2:
        raise ValueError(f"pred has shape {pred.shape}, true {true.shape}: both must be (H, W)")
    valid = true != ignore
    for name, labels in (("true", true[valid]), ("pred", pred[valid])):
        outside = labels[(labels < 0) | (labels >= num_classes)]
        if outside.size:
            raise ValueError(
                f"{name} holds label {int(outside[0])}; with {num_classes} classes labels run from 0 to {num_classes - 1}"
            )
