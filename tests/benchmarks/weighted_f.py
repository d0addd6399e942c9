"""The weighted F-measure of label maps against PySODMetrics, one core, 480 x 640, 8 classes. Prints one line of JSON a kind.

Needs numpy, scipy, numba and pysodmetrics, whose pins conflict with ours: `make benchmark` gives it an environment of its own.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from py_sod_metrics import WeightedFmeasure
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.score import weighted_fmeasure

SHAPE, CLASSES, ROUNDS = (480, 640), 8, 5


def fields(rng, scale_px):
    """(K, H, W): one smooth random field a class, of unit variance."""
    blurred = np.stack([ndimage.gaussian_filter(rng.normal(size=SHAPE), scale_px) for _ in range(CLASSES)])
    return blurred / blurred.std()


def smooth(rng):
    """Regions of some tens of pixels; the prediction is moved a little and wrong in places, about 80 % of pixels right."""
    truth = fields(rng, 25)
    return truth.argmax(0), (ndimage.shift(truth, (0, 5, -4), order=0, mode="nearest") + 0.25 * fields(rng, 25)).argmax(
        0
    )


def small_objects(rng):
    """40 boxes of 5 to 25 px on background; four of five found, a few pixels off; ten false ones."""
    truth, pred = np.zeros(SHAPE, int), np.zeros(SHAPE, int)
    for i in range(40):
        k, y, x = rng.integers(1, CLASSES), rng.integers(0, 450), rng.integers(0, 610)
        height, width = rng.integers(5, 26, 2)
        truth[y : y + height, x : x + width] = k
        if i % 5:
            dy, dx = np.maximum(rng.integers(-3, 4, 2), (-y, -x))
            pred[y + dy : y + dy + height, x + dx : x + dx + width] = k
    for _ in range(10):
        k, y, x = rng.integers(1, CLASSES), rng.integers(0, 450), rng.integers(0, 610)
        pred[y : y + 12, x : x + 12] = k
    return truth, pred


def ragged(rng):
    """Fields of 2 px: every region is a splinter; two of three pixels right."""
    truth = fields(rng, 2.0)
    return truth.argmax(0), (truth + 0.5 * fields(rng, 1.5)).argmax(0)


def reference(pred, truth):
    """PySODMetrics, one class against the rest."""
    values = np.full(CLASSES, np.nan)
    for k in np.unique(truth):
        metric = WeightedFmeasure(beta=1)
        metric.step((pred == k).astype(np.uint8) * 255, (truth == k).astype(np.uint8) * 255)
        values[k] = metric.get_results()["wfm"]
    return values


def main():
    for make in (smooth, small_objects, ragged):
        truth, pred = (labels.astype(np.uint8) for labels in make(np.random.default_rng(0)))
        ours = weighted_fmeasure(pred, truth, CLASSES)  # compiles
        theirs = reference(pred, truth)
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
        for _ in range(ROUNDS):  # in turn, because the machine's speed drifts
            for name, function in (("theirs", reference), ("ours", weighted_fmeasure)):
                began = time.perf_counter()
                function(pred, truth, *([CLASSES] if name == "ours" else []))
                seconds[name].append(time.perf_counter() - began)
        theirs_s, ours_s = (float(np.median(seconds[name])) for name in ("theirs", "ours"))
        row = {"kind": make.__name__, "reference_ms": theirs_s * 1e3, "ms": ours_s * 1e3, "ratio": theirs_s / ours_s}
        print(json.dumps(row | {"largest_difference": float(np.nanmax(np.abs(ours - theirs)))}))


if __name__ == "__main__":
    main()
