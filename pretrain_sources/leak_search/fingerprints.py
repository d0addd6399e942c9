"""Fingerprints of images: low frequencies of a small thumbnail, for every crop and flip of a test image."""

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

LEAST_SIDE = 32  # pixels; smaller images have too little detail
BLANK = 4  # grey levels; a smoothed thumbnail with a smaller range is blank
WAVES = 10  # half waves across the image; the fingerprint has the lower frequencies
CROPS = (1.0, 0.93, 0.86, 0.8)  # sides of the crops of a test image; smaller ones have more positions
CHUNK = 32  # test images in one matrix product, which takes all cores
UNREADABLE = "unreadable, not compared; copy again"

Floats = NDArray[np.float32]


@dataclass
class Thumbnails:
    """Thumbnails (N, SIDE, SIDE) of comparable images, and the names of the others by reason."""

    ids: list[str]
    thumbs: Pixels
    refused: dict[str, list[str]]

    @classmethod
    def of(cls, frames: Iterable[Frame]) -> "Thumbnails":
        """Make the thumbnails of these images."""
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
        """Return the softened thumbnails (N, SIDE, SIDE)."""
        return np.array([soften(thumb) for thumb in self.thumbs], np.uint8).reshape(-1, SIDE, SIDE)


def _thumb(name: str, pixels: Pixels) -> tuple[Pixels | None, str]:
    """Return (thumbnail, "") of an image, or (None, why it cannot be compared)."""
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise LeakSearchError(
            f"{name}: an array of shape {pixels.shape} and type {pixels.dtype}, not (H, W) of uint8; "
            "read it with pretrain_sources.image_files.decode_thermal"
        )
    if min(pixels.shape) < LEAST_SIDE:
        return None, f"a side below {LEAST_SIDE} pixels, not compared"
    thumb = np.asarray(cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return (None, "blank, not compared") if np.ptp(_smooth(thumb)) < BLANK else (thumb, "")


def _smooth(thumb: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(thumb, (0, 0), 1.0))


def soften(thumb: Pixels) -> Pixels:
    """Smooth a thumbnail and equalise its histogram, which makes it invariant to gain, offset and gamma."""
    return np.asarray(cv2.equalizeHist(_smooth(thumb)))


_DOWN, _RIGHT = (axis.ravel() for axis in np.mgrid[:WAVES, :WAVES])
_KEPT = (np.hypot(_DOWN, _RIGHT) < WAVES) & (_DOWN + _RIGHT > 0)  # all but the mean
_DOWN, _RIGHT = _DOWN[_KEPT], _RIGHT[_KEPT]
_WEIGHTS = np.hypot(_DOWN, _RIGHT).astype(np.float32)  # whitens the spectrum of natural images
_COSINES = dct(np.eye(SIDE), axis=0, norm="ortho")[:WAVES].astype(np.float32)
FLIP_STEPS = ((1, 1), (-1, 1), (1, -1), (-1, -1))  # slice steps of each flip, across and down
_SIGNS = [  # of each flip: it negates odd waves
    np.where((_RIGHT * (across < 0) + _DOWN * (down < 0)) % 2, -1, 1).astype(np.float32) for across, down in FLIP_STEPS
]


def fingerprints_of(soft: Pixels) -> Floats:
    """Return unit-length fingerprints (N, D) of softened thumbnails (N, SIDE, SIDE)."""
    waves = (_COSINES @ soft.astype(np.float32) @ _COSINES.T).reshape(len(soft), -1)[:, _KEPT] * _WEIGHTS
    return np.asarray(waves / np.maximum(np.linalg.norm(waves, axis=1, keepdims=True), 1e-6))


@dataclass(frozen=True)
class Crop:
    """Part of a test image: its sides and corner as shares of the frame, (across, down)."""

    sides: tuple[float, float]
    corner: tuple[float, float]

    def matrix(self) -> Floats:
        """Return the affine map (2, 3) from pixels of the crop's thumbnail to those of the full image's."""
        (a, b), (x, y) = self.sides, self.corner
        return np.array([[a, 0, x * SIDE + (a - 1) / 2], [0, b, y * SIDE + (b - 1) / 2]], np.float32)


def _crops() -> tuple[Crop, ...]:
    """Return all crops to try, the full image first: of the image's shape, or slightly cropped along one axis."""
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
    """Return fingerprints of every flip of every crop of the test images, (N, flips x crops, D)."""

    prints = np.stack(
        [fingerprints_of(np.stack([soften(warped(thumb, crop.matrix())) for crop in ALL_CROPS])) for thumb in thumbs]
    )
    return np.concatenate([prints * signs for signs in _SIGNS], axis=1)


def warped(image: NDArray[Any], matrix: NDArray[np.float32]) -> NDArray[Any]:
    """Warp an image by `matrix` to (SIDE, SIDE)."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE))


def similarities_of(prints: Floats, others: Floats) -> Floats:
    """Return the largest absolute correlation over all changes of a test image, (tests, others)."""

    def largest(chunk: Floats) -> Floats:
        correlations = (chunk.reshape(-1, chunk.shape[-1]) @ others.T).reshape(len(chunk), -1, len(others))
        return np.asarray(np.maximum(correlations.max(axis=1), -correlations.min(axis=1)))

    return np.concatenate([largest(prints[i : i + CHUNK]) for i in range(0, len(prints), CHUNK)])
