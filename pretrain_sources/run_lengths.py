"""Run-length encoding of masks in COCO's order: column by column, beginning with pixels outside."""

import numpy as np
from numpy.typing import NDArray


def run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Encode a mask (H, W), column by column, beginning with a run of pixels outside (may be 0)."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [flat.size]))
    runs = np.diff(edges).astype(np.uint32)
    return np.concatenate((np.zeros(1, np.uint32), runs)) if flat.size and flat[0] else runs


def from_run_lengths(runs: NDArray[np.uint32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode run lengths to a mask (H, W).

    Raises:
        ValueError: they do not have the length of a mask of that size.
    """
    if int(runs.sum()) != size[0] * size[1]:
        raise ValueError(f"run lengths of {int(runs.sum())} pixels for a mask of {size[0]} x {size[1]}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size, order="F")
