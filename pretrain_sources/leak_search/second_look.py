"""Verification of candidate pairs: images are aligned and their gradients correlated."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from pretrain_sources.image_files import Pixels
from pretrain_sources.leak_search.fingerprints import (
    ALL_CROPS,
    FLIP_STEPS,
    Crop,
    Floats,
    Thumbnails,
    fingerprints_of,
    soften,
    warped,
)
from pretrain_sources.leak_search.frames import SIDE

LOOKS = 4  # corpus images verified per test image
LEAST_SHARED = 0.5  # minimum overlap after alignment, as a share of the corpus image
WHOLE = 0.97  # larger sides count as the whole frame
_FLIP_NAMES = ((), ("left-right",), ("up-down",), ("left-right", "up-down"))

Pair = tuple[int, str, Pixels]  # index of the test image, id and thumbnail of the other


@dataclass(frozen=True)
class Suspect:
    """A corpus image that matches a test image. `similarity`: correlation of their gradients after alignment, up to 1."""

    test_id: str
    corpus_id: str
    similarity: float
    how: str  # apparent change of the test image


class BestCandidates:
    """The most similar images of each test image so far, independent of the order of images."""

    def __init__(self, tests: int) -> None:
        self.kept: list[list[tuple[float, str, Pixels]]] = [[] for _ in range(tests)]
        self.least = np.full(tests, -1.0)

    def add(self, similarities: Floats, thumbs: "Thumbnails") -> None:
        """Add the images in `thumbs`. similarities: (tests, images)."""
        of_block = np.sort(similarities, axis=1)[:, -LOOKS:][:, 0]
        for i, j in np.argwhere(similarities >= np.maximum(self.least, of_block - 1e-4)[:, None]).tolist():
            self.kept[i].append((round(-float(similarities[i, j]), 4), thumbs.ids[j], thumbs.thumbs[j].copy()))
        for i, kept in enumerate(self.kept):
            if len(kept) > LOOKS:
                kept.sort(key=lambda row: row[:2])
                del kept[LOOKS:]
                self.least[i] = -kept[-1][0] - 1e-4

    def pairs(self) -> list[Pair]:
        """Return each test image with each of its candidates."""
        return [(i, name, thumb) for i, kept in enumerate(self.kept) for _, name, thumb in kept]


def second_looks(pairs: Sequence[Pair], tests: Thumbnails, prints: Floats) -> list[Suspect]:
    """Verify each pair."""

    def look(pair: Pair, fingerprint: Floats) -> Suspect:
        i, name, thumb = pair
        correlations = prints[i] @ fingerprint
        change = int(np.abs(correlations).argmax())
        inverted = bool(correlations[change] < 0)
        flip, crop = divmod(change, len(ALL_CROPS))
        similarity, matrix = _aligned(tests.thumbs[i], thumb, flip, ALL_CROPS[crop], inverted=inverted)
        return Suspect(tests.ids[i], name, similarity, _change_text(flip, matrix, inverted=inverted))

    fingerprints = [
        fingerprints_of(soften(thumb)[None])[0] for _, _, thumb in pairs
    ]  # matrix products use threads themselves
    with ThreadPoolExecutor() as threads:
        return list(threads.map(look, pairs, fingerprints))


def _aligned(test: Pixels, other: Pixels, flip: int, crop: Crop, inverted: bool) -> tuple[float, Floats]:
    """Align two thumbnails; return the correlation of their gradients in the overlap, and the map (2, 3) from other to test."""
    here, there = soften(test), soften(np.ascontiguousarray(other[:: FLIP_STEPS[flip][1], :: FLIP_STEPS[flip][0]]))
    there = 255 - there if inverted else there
    smooth = [cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5) for image in (there, here)]
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-4)
    try:
        matrix = cv2.findTransformECC(smooth[0], smooth[1], crop.matrix(), cv2.MOTION_AFFINE, stop, None, 1)[1]
    except cv2.error:  # no better alignment than the initial one
        matrix = crop.matrix()
    seen = cv2.warpAffine(
        np.ones((SIDE, SIDE), np.uint8), matrix, (SIDE, SIDE), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    seen[:1], seen[-1:], seen[:, :1], seen[:, -1:] = 0, 0, 0, 0
    inner = cv2.erode(seen, np.ones((5, 5), np.uint8)) > 0
    if inner.mean() < LEAST_SHARED:
        return 0.0, matrix
    a, b = (_gradients(image)[:, inner] for image in (warped(here, matrix), there))
    return float((a * b).sum() / max(math.sqrt(float((a * a).sum() * (b * b).sum())), 1e-6)), matrix


def _gradients(image: Pixels) -> Floats:
    """Return gradients across and down, (2, SIDE, SIDE)."""
    return np.stack([cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)])


def _change_text(flip: int, matrix: Floats, inverted: bool) -> str:
    """Describe the change of the test image."""
    across, down = np.hypot(matrix[0, 0], matrix[1, 0]), np.hypot(matrix[0, 1], matrix[1, 1])
    changes = [f"cropped to {min(across, 1):.0%} x {min(down, 1):.0%}"] if min(across, down) < WHOLE else []
    changes += ["flipped " + " and ".join(_FLIP_NAMES[flip])] if flip else []
    changes += ["inverted"] if inverted else []
    return ", ".join(changes) or "the whole frame"
