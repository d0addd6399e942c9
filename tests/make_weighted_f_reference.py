"""Makes weighted_f_reference.npz: masks and what PySODMetrics says of them. Needs `pip install pysodmetrics`, in an
environment of its own because its pins conflict with ours:

    python tests/make_weighted_f_reference.py
"""

from pathlib import Path

import numpy as np
from py_sod_metrics import WeightedFmeasure
from scipy import ndimage


def blobs(rng, shape, scale, share):
    """Smooth regions: thresholded, blurred noise. A bool mask."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), scale)
    return field > np.quantile(field, 1 - share)


def box(shape, top, left, height, width):
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def disturbed(rng, mask, kind):
    """A prediction for `mask`: moved, grown, shrunk, speckled, empty, full or exact."""
    if kind == "moved":
        return np.roll(mask, rng.integers(-4, 5, 2), (0, 1))
    if kind == "grown":
        return ndimage.binary_dilation(mask, iterations=int(rng.integers(1, 6)))
    if kind == "shrunk":
        return ndimage.binary_erosion(mask, iterations=int(rng.integers(1, 4)))
    if kind == "speckled":
        return mask ^ (rng.random(mask.shape) < 0.05)
    return {"empty": np.zeros_like(mask), "full": np.ones_like(mask), "exact": mask}[kind]


def truths(rng):
    """Masks of every kind that has fooled an implementation: small, large, at the border, full, one pixel, ragged."""
    shape = (int(rng.integers(40, 90)), int(rng.integers(40, 110)))
    yield blobs(rng, shape, 6, 0.3)
    yield blobs(rng, shape, 2, 0.05)
    yield blobs(rng, shape, 10, 0.8)
    yield box(shape, int(rng.integers(0, 30)), int(rng.integers(0, 30)), 4, 3)
    yield box(shape, 0, 0, 12, shape[1])
    yield box(shape, shape[0] - 1, shape[1] - 1, 1, 1)
    yield np.ones(shape, dtype=bool)
    yield rng.random(shape) < 0.2


def main():
    rng = np.random.default_rng(0)
    kinds = ("moved", "grown", "shrunk", "speckled", "empty", "full", "exact")
    cases = [(t, disturbed(rng, t, kinds[(i + j) % len(kinds)])) for i in range(29) for j, t in enumerate(truths(rng))]
    for scale in (12, 30):
        large = blobs(rng, (480, 640), scale, 0.2)
        cases += [(large, disturbed(rng, large, kind)) for kind in ("moved", "grown", "shrunk")]
    store, values = {}, []
    for i, (truth, pred) in enumerate(cases):
        ignore = blobs(rng, truth.shape, 5, 0.1) if i % 3 == 0 else np.zeros_like(truth)
        if not (truth & ~ignore).any():
            ignore = np.zeros_like(truth)
        true_map = np.where(ignore, 255, truth).astype(np.uint8)
        metric = WeightedFmeasure(beta=1)
        metric.step(((pred & ~ignore) * 255).astype(np.uint8), ((truth & ~ignore) * 255).astype(np.uint8))
        values.append(metric.get_results()["wfm"])
        store[f"shape_{i}"] = np.array(truth.shape)
        store[f"bits_{i}"] = np.packbits(np.stack([true_map == 1, true_map == 255, pred]))
    path = Path(__file__).with_name("weighted_f_reference.npz")
    np.savez_compressed(path, values=np.array(values), **store)  # type: ignore[arg-type]
    print(
        len(values),
        "masks,",
        path.stat().st_size // 1024,
        "KB",
        np.round(np.quantile(values, (0, 0.25, 0.5, 0.75, 1)), 3),
    )


if __name__ == "__main__":
    main()
