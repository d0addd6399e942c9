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


def from_run_lengths(runs: NDArray[np.uint32] | NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode run lengths to a mask (H, W).

    Raises:
        ValueError: they do not have the length of a mask of that size.
    """
    if int(runs.sum()) != size[0] * size[1]:
        raise ValueError(f"run lengths of {int(runs.sum())} pixels for a mask of {size[0]} x {size[1]}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size, order="F")


def from_compressed(text: str) -> NDArray[np.int64]:
    """Decode COCO's compressed run lengths. pycocotools reads beyond the end of texts that are cut off, so it is not used.

    Raises:
        ValueError: the text is not complete, or a run is negative.
    """
    try:
        letters = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError as error:
        raise ValueError("compressed run lengths with a letter outside of ASCII") from error
    ends = np.flatnonzero(letters & 32 == 0)
    if not len(ends) or letters.min() < 0 or letters.max() > 63 or ends[-1] != len(letters) - 1:
        raise ValueError("compressed run lengths are not complete")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 35 bits
        raise ValueError("compressed run lengths with a number that is too large")
    places = np.arange(len(letters)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((letters & 31) << (5 * places), starts)
    runs -= np.where(letters[ends] & 16, 1 << (5 * lengths), 0)
    for first in (1, 2):  # from the fourth run on they are written as differences to the run but one before
        runs[first::2] = np.cumsum(runs[first::2])
    if runs.min() < 0:
        raise ValueError("compressed run lengths with a negative run")
    return runs
