"""Metrics: pure functions from arrays to scores. N images, K classes."""

import numpy as np
from numpy.typing import NDArray

from results.evidence import Evidence
from results.scores import Scores

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Weighted F-measure (Margolin et al., CVPR 2014): the normalised 7 x 7 Gaussian of sigma 5 is the outer product of this row.
WINDOW: Floats = np.exp(-0.5 * (np.arange(-3, 4) / 5.0) ** 2)
WINDOW /= WINDOW.sum()
EPSILON = float(np.spacing(1))  # in the denominators of precision and of the measure


def miou_mmsegmentation(confusion: Ints) -> float:
    """Return the mean IoU as mmsegmentation has it: a class that is predicted and absent from the truth counts as 0.

    `miou` leaves such a class out: what it scores says how often it was predicted in these images, not how well it was found. With
    the truth (50, 50, 0) and the prediction (50, 40, 10) pixels of three classes, `miou` is (1 + 0.8) / 2 = 0.9, and this
    (1 + 0.8 + 0) / 3 = 0.6. Both are equal where every predicted class occurs in the truth. `IoUMetric.total_area_to_metrics`,
    mmsegmentation 1.2: intersection / union, and `nanmean`.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    hit, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return _mean(np.where(union > 0, hit / np.maximum(union, 1), np.nan))


def class_iou(confusion: Ints) -> Floats:
    """Return (K,) IoU per class from a (K, K) confusion matrix, rows are truth; NaN where the class is absent from the truth."""
    confusion = np.asarray(confusion, dtype=np.float64)
    hit, truth, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return np.where(truth > 0, hit / np.maximum(truth + predicted - hit, 1), np.nan)


def miou(confusion: Ints, background: bool = True) -> float:
    """Return the mean IoU over the classes that occur in the truth of a (K, K) confusion matrix.

    Background (class 0) is included, as in the code published for SODA, unless `background=False`. NaN if no class is left. A
    class that is predicted and absent from the truth is left out; mmsegmentation counts it as 0 (`miou_mmsegmentation`).
    """
    return _mean(class_iou(confusion)[0 if background else 1 :])


def constant(truth: Ints) -> tuple[int, float]:
    """Return (class, mIoU) of the best constant prediction. truth: (K,) pixels of each class.

    The IoU of that class is its share of the pixels; that of every other class in the truth is 0. NaN if there is no pixel.
    """
    best, present = int(np.argmax(truth)), np.count_nonzero(truth)
    return best, float(truth[best] / truth.sum() / present) if present else float("nan")


def class_precision(confusion: Ints) -> Floats:
    """Return (K,) hit / predicted pixels per class from a (K, K) confusion matrix; NaN where the class is never predicted."""
    confusion = np.asarray(confusion, dtype=np.float64)
    predicted = confusion.sum(0)
    return np.where(predicted > 0, np.diag(confusion) / np.maximum(predicted, 1), np.nan)


def class_recall(confusion: Ints) -> Floats:
    """Return (K,) hit / true pixels per class from a (K, K) confusion matrix; NaN where the class is absent from the truth."""
    return class_precision(np.asarray(confusion).T)


def class_area_ratio(confusion: Ints) -> Floats:
    """Return (K,) predicted / true pixels per class from a (K, K) confusion matrix; NaN where it is absent from the truth."""
    confusion = np.asarray(confusion, dtype=np.float64)
    truth = confusion.sum(1)
    return np.where(truth > 0, confusion.sum(0) / np.maximum(truth, 1), np.nan)


def class_weighted_f(weighted_f: Floats) -> Floats:
    """Return (K,) means over the images that contain the class, from (N, K) values that are NaN where it is absent."""
    present = ~np.isnan(weighted_f)
    total = np.where(present, weighted_f, 0.0).sum(0)
    return np.where(present.any(0), total / np.maximum(present.sum(0), 1), np.nan)


def class_false_presence(confusions: Ints) -> Floats:
    """Return (K,) share of the images without the class in which it was predicted, from (N, K, K); NaN if every image has it."""
    absent = confusions.sum(2) == 0
    predicted = confusions.sum(1) > 0
    return np.where(absent.any(0), (absent & predicted).sum(0) / np.maximum(absent.sum(0), 1), np.nan)


def scores(evidence: Evidence) -> Scores:
    """Compute the scores that every record has.

    Raises:
        ValueError: the evidence has no labelled pixels.
    """
    total = evidence.confusion.astype(np.int64).sum(0)
    if total.sum() == 0:
        raise ValueError("the evidence has no labelled pixels: scores are undefined")
    per_class = class_weighted_f(evidence.weighted_f)
    return Scores(
        miou=miou(total),
        miou_no_background=_null(miou(total, background=False)),
        weighted_f=_mean(per_class),
        class_iou=_nulls(class_iou(total)),
        class_weighted_f=_nulls(per_class),
        class_false_presence=_nulls(class_false_presence(evidence.confusion)),
        test_images=len(evidence.image_ids),
    )


def all_scores(evidence: Evidence) -> Scores:
    """Compute the scores of a new record: `scores`, and precision, recall and area of each class.

    Raises:
        ValueError: the evidence has no labelled pixels.
    """
    total = evidence.confusion.astype(np.int64).sum(0)
    more = {
        "class_precision": _nulls(class_precision(total)),
        "class_recall": _nulls(class_recall(total)),
        "class_area_ratio": _nulls(class_area_ratio(total)),
    }
    return scores(evidence).model_copy(update=more)


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _nulls(values: Floats) -> list[float | None]:
    return [_null(v) for v in values]
