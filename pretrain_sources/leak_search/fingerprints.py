"""Fingerprints of images: the slow waves of a small thumbnail, for every crop and flip of a test image."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from pretrain_sources.image_files import Pixels
from pretrain_sources.leak_search.frames import SIDE, Frame, LeakSearchError

LEAST_SIDE = 32  # pixels; a smaller image has too little in it to be told from others
BLANK = 4  # grey levels; a thumbnail that spans fewer, once smoothed, shows nothing
WAVES = 10  # half waves across the frame; the fingerprint holds the slower ones
CROPS = (1.0, 0.93, 0.86, 0.8)  # sides of the crops of a test image; the further in, the more positions
CHUNK = 32  # test images in one matrix product, which takes all cores
UNREADABLE = "unreadable, so not compared; copy again"

Floats = NDArray[np.float32]


@dataclass
class Thumbnails:
    """Thumbnails (N, SIDE, SIDE) of the images that can be compared, and the names of those that cannot, by reason."""

    ids: list[str]
    thumbs: Pixels
    refused: dict[str, list[str]]

    @classmethod
    def of(cls, frames: Iterable[Frame]) -> "Thumbnails":
        """The thumbnails of these images."""
        ids, thumbs, refused = [], [], dict[str, list[str]]()
        for name, pixels in frames:
            thumb, why = (None, UNREADABLE) if isinstance(pixels, Exception) else _thumb(name, pixels)
            if thumb is None:
                refused.setdefault(why, []).append(name)
            else:
                ids.append(name)
                thumbs.append(thumb)
        return cls(ids, np.array(thumbs, np.uint8).reshape(-1, SIDE, SIDE), refused)

    def soft(self) -> Pixels:
        """The thumbnails, softened: (N, SIDE, SIDE)."""
        return np.array([soften(thumb) for thumb in self.thumbs], np.uint8).reshape(-1, SIDE, SIDE)


def _thumb(name: str, pixels: Pixels) -> tuple[Pixels | None, str]:
    """(thumbnail, "") of an image, or (None, why it cannot be compared)."""
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise LeakSearchError(
            f"{name}: an array of shape {pixels.shape} and type {pixels.dtype}, not (H, W) of uint8; "
            "read it with pretrain_sources.image_files.decode_thermal"
        )
    if min(pixels.shape) < LEAST_SIDE:
        return None, f"a side below {LEAST_SIDE} pixels, so not compared"
    thumb = np.asarray(cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return (None, "blank, so not compared") if np.ptp(_smooth(thumb)) < BLANK else (thumb, "")


def _smooth(thumb: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(thumb, (0, 0), 1.0))


def soften(thumb: Pixels) -> Pixels:
    """A thumbnail with less noise and an even histogram: gain, offset and gamma leave it as it is."""
    return np.asarray(cv2.equalizeHist(_smooth(thumb)))


_DOWN, _RIGHT = (axis.ravel() for axis in np.mgrid[:WAVES, :WAVES])
_KEPT = (np.hypot(_DOWN, _RIGHT) < WAVES) & (_DOWN + _RIGHT > 0)  # all but the mean
_DOWN, _RIGHT = _DOWN[_KEPT], _RIGHT[_KEPT]
_WEIGHTS = np.hypot(_DOWN, _RIGHT).astype(np.float32)  # natural images have less of fast waves: this evens it out
_COSINES = dct(np.eye(SIDE), axis=0, norm="ortho")[:WAVES].astype(np.float32)
FLIP_STEPS = ((1, 1), (-1, 1), (1, -1), (-1, -1))  # of each flip, across and down
_SIGNS = [  # of each flip: it turns the waves of odd number
    np.where((_RIGHT * (across < 0) + _DOWN * (down < 0)) % 2, -1, 1).astype(np.float32) for across, down in FLIP_STEPS
]


def fingerprints_of(soft: Pixels) -> Floats:
    """(N, D) of unit length, of softened thumbnails (N, SIDE, SIDE)."""
    waves = (_COSINES @ soft.astype(np.float32) @ _COSINES.T).reshape(len(soft), -1)[:, _KEPT] * _WEIGHTS
    return np.asarray(waves / np.maximum(np.linalg.norm(waves, axis=1, keepdims=True), 1e-6))


@dataclass(frozen=True)
class Crop:
    """Part of a test image: its sides and corner as shares of the frame, (across, down)."""

    sides: tuple[float, float]
    corner: tuple[float, float]

    def matrix(self) -> Floats:
        """(2, 3) from pixels of the crop's thumbnail to those of the whole image's."""
        (a, b), (x, y) = self.sides, self.corner
        return np.array([[a, 0, x * SIDE + (a - 1) / 2], [0, b, y * SIDE + (b - 1) / 2]], np.float32)


def _crops() -> tuple[Crop, ...]:
    """Every crop that is tried, the whole frame first: of the frame's shape, or a little off one pair of sides."""
    steps = range(len(CROPS))
    return tuple(
        Crop((CROPS[i], CROPS[j]), (float(x), float(y)))
        for i, j in itertools.product(steps, steps)
        if i == j or i + j == 1
        for x in np.linspace(0, 1 - CROPS[i], i + 1)
        for y in np.linspace(0, 1 - CROPS[j], j + 1)
    )


ALL_CROPS = _crops()


def expanded_fingerprints(thumbs: Pixels) -> Floats:
    """(N, flips x crops, D): fingerprints of every crop of the test images, and of every flip of those."""

    prints = np.stack(
        [fingerprints_of(np.stack([soften(warped(thumb, crop.matrix())) for crop in ALL_CROPS])) for thumb in thumbs]
    )
    return np.concatenate([prints * signs for signs in _SIGNS], axis=1)


def warped(image: NDArray[Any], matrix: NDArray[np.float32]) -> NDArray[Any]:
    """(SIDE, SIDE): what `matrix` points at."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE))


def similarities_of(prints: Floats, others: Floats) -> Floats:
    """(tests, others): the largest correlation of either sign over all changes of a test image."""

    def largest(chunk: Floats) -> Floats:
        found = (chunk.reshape(-1, chunk.shape[-1]) @ others.T).reshape(len(chunk), -1, len(others))
        return np.asarray(np.maximum(found.max(axis=1), -found.min(axis=1)))

    return np.concatenate([largest(prints[i : i + CHUNK]) for i in range(0, len(prints), CHUNK)])
