"""Score a prediction against a label map: confusion matrix and weighted F-measure.

Weighted F-measure: Margolin, Zelnik-Manor, Tal, "How to Evaluate Foreground Maps?", CVPR 2014. Its use on label maps
is not published; here: one class against the rest, ignored pixels count as background without prediction, and a class that is
absent from the truth has no value.
"""

import numpy as np
from numpy.typing import NDArray

from bench.score.weighted_f import class_sums
from results.metrics import EPSILON

Labels = NDArray[np.integer]

_NO_CLASS = 255  # marks ignored pixels in 8-bit maps


def confusion_matrix(pred: Labels, true: Labels, num_classes: int, ignore: int = 255) -> NDArray[np.int64]:
    """Compute (K, K) pixel counts, rows truth, for label maps (H, W); pixels whose truth is `ignore` are excluded.

    Raises:
        ValueError: the shapes differ, or a label is outside 0..K-1.
    """
    _check(pred, true, num_classes, ignore)
    valid = true != ignore
    pairs = true[valid].astype(np.int64) * num_classes + pred[valid]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def weighted_fmeasure(
    pred: Labels, true: Labels, num_classes: int, ignore: int = 255, beta_squared: float = 1.0
) -> NDArray[np.float64]:
    """Compute (K,) weighted F-measure of each class for label maps (H, W); NaN where the class is absent from `true`.

    Steps 6 and 7 of the paper; `bench.score.weighted_f` computes the sums of Ew.

    Raises:
        ValueError: the shapes differ, or a label is outside 0..K-1.
    """
    _check(pred, true, num_classes, ignore)
    dtype = np.uint8 if num_classes <= _NO_CLASS else np.int64
    no_class = _NO_CLASS if num_classes <= _NO_CLASS else -1
    ignored = true == ignore
    sums = class_sums(
        np.where(ignored, no_class, pred).astype(dtype), np.where(ignored, no_class, true).astype(dtype), num_classes
    )
    size, missed, false = sums[sums[:, 0] > 0].T
    hit = size - missed
    recall = 1.0 - missed / size
    precision = hit / (EPSILON + hit + false)
    values = np.full(num_classes, np.nan)
    values[sums[:, 0] > 0] = (1 + beta_squared) * recall * precision / (EPSILON + recall + beta_squared * precision)
    return values


def _check(pred: Labels, true: Labels, num_classes: int, ignore: int) -> None:
    for name, labels in (("pred", pred), ("true", true)):
        if not (isinstance(labels, np.ndarray) and np.issubdtype(labels.dtype, np.integer)):
            raise ValueError(f"{name} must be a numpy array of integers, not {getattr(labels, 'dtype', type(labels))}")
    if pred.shape != true.shape or pred.ndim != 2:
        raise ValueError(f"pred has shape {pred.shape}, true {true.shape}: both must be (H, W)")
    for name, labels in (("true", true), ("pred", pred)):
        outside = labels >= num_classes
        if labels.dtype.kind == "i":
            outside |= labels < 0
        if outside.any() and (outside := outside & (true != ignore)).any():
            raise ValueError(
                f"{name} holds label {int(labels[outside][0])}; "
                f"with {num_classes} classes labels run from 0 to {num_classes - 1}"
            )
