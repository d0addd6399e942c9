"""Training images of sam-tiny with segments; a pure function of (seed, step, place).

scenes    rendered frames; their instances, and each connected piece of ground, wall or sky
real      unlabelled thermal frames, if available; segments of a classical method
pasted    either of them with warm and cold shapes on top, whose masks are known: small objects as seen from a drone
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.scenes import render
from pretrain_sources.hashing import derive_seed
from pretrain_sources.image_files import decode_thermal
from pretrain_sources.recipe import FelzenszwalbTeacher
from pretrain_sources.teachers.felzenszwalb import open_teacher
from pretrain_sources.teachers.sam_tiny import SIDE

LEAST_PX = 32  # smallest segment, in pixels
STUFF = 0.1  # weight of a piece of ground, wall or sky, relative to an instance
WHOLE = 0.5  # share of frames that are not cropped
CROPS = (0.35, 1.0)  # size of crops, relative to the frame
REAL = 0.4  # share of images from real frames, if there are any
PASTED_ON_REAL, PASTED_ON_SCENES = 0.75, 0.2  # share of real and of rendered images with shapes on top
SCENES = ((240, 320), (480, 640))  # smallest and largest rendered size
SCALES = (120.0, 400.0)  # of the classical segments

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Picture:
    """An image and its segments.

    Attributes:
        thermal: (H, W), long side 384 pixels. masks: (N, H, W), N >= 1. weights: (N,) relative sampling frequency.
    """

    thermal: Bytes
    masks: Bools
    weights: NDArray[np.float64]


def picture(real: Sequence[Path], seed: int, step: int, place: int) -> Picture:
    """Make the image at this place of the batch of a step. real: thermal files, may be empty."""
    for attempt in range(100):
        rng = np.random.default_rng(derive_seed("sam-tiny picture", seed, step, place, attempt))
        made = _picture(real, rng)
        if len(made.masks):
            return made
    raise ValueError("no segment in 100 images: are the real frames empty?")


def _picture(real: Sequence[Path], rng: np.random.Generator) -> Picture:
    masks: Bools | None = None
    if real and rng.random() < REAL:
        frame = decode_thermal(real[int(rng.integers(len(real)))].read_bytes())
        thermal, _ = _cut(frame, np.zeros(frame.shape, np.int32), rng)
        if rng.random() >= PASTED_ON_REAL:
            drawn = open_teacher(FelzenszwalbTeacher(scales=SCALES, min_size=LEAST_PX), Path())(thermal)
            masks, weights = drawn.masks, (drawn.predicted_iou * drawn.stability).astype(np.float64)
    else:
        scene = render(rng, _size(rng))
        both = np.stack([scene.instances.astype(np.int32), _pieces(scene.labels, scene.instances)], axis=-1)
        thermal, ids = _cut(scene.thermal, both, rng)
        if rng.random() >= PASTED_ON_SCENES:
            things, pieces = _masks(ids[..., 0]), _masks(ids[..., 1])
            masks, weights = np.concatenate([things, pieces]), np.repeat([1.0, STUFF], [len(things), len(pieces)])
    if masks is None:
        thermal, shapes = _pasted(thermal, rng)
        masks = _masks(shapes)
        weights = np.ones(len(masks))
    weights = weights * masks.sum((1, 2)) ** 0.25  # compensates for the many small masks
    return Picture(_seen(thermal, rng), masks[weights > 0], weights[weights > 0])


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """Draw the (height, width) of a rendered frame."""
    share = rng.random()
    height, width = (int(small + share * (large - small)) // 2 * 2 for small, large in zip(*SCENES, strict=True))
    return height, width


def _pieces(labels: Bytes, instances: NDArray[np.uint16]) -> Ids:
    """Number the connected pieces of stuff from 1, (H, W); 0 on instances."""
    numbers, count = np.zeros(labels.shape, np.int32), 0
    for label in np.unique(labels[instances == 0]):
        some, pieces = cv2.connectedComponents(((labels == label) & (instances == 0)).astype(np.uint8), connectivity=4)
        numbers[pieces > 0] = pieces[pieces > 0] + count
        count += some - 1
    return numbers


def _cut(frame: Bytes, ids: Ids, rng: np.random.Generator) -> tuple[Bytes, Ids]:
    """Crop (or keep) the frame and `ids`, flip them at random, and resize the long side to 384 pixels."""
    height, width = frame.shape
    share = 1.0 if rng.random() < WHOLE else rng.uniform(*CROPS)
    h, w = max(8, round(share * height)), max(8, round(share * width))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    frame, ids = frame[y : y + h, x : x + w], ids[y : y + h, x : x + w]
    if rng.random() < 0.5:
        frame, ids = frame[:, ::-1], ids[:, ::-1]
    scale = SIDE / max(h, w)
    size = max(1, round(w * scale)), max(1, round(h * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    thermal = cv2.resize(np.ascontiguousarray(frame), size, interpolation=way)
    return np.asarray(thermal, np.uint8), np.asarray(
        cv2.resize(np.ascontiguousarray(ids), size, interpolation=cv2.INTER_NEAREST), np.int32
    )


def _masks(ids: Ids) -> Bools:
    """Return masks (N, H, W) of the ids with enough pixels."""
    counts = np.bincount(ids.ravel())
    numbers = 1 + np.flatnonzero(counts[1:] >= LEAST_PX)
    masks: Bools = ids[None] == numbers[:, None, None]
    return masks


def _pasted(thermal: Bytes, rng: np.random.Generator) -> tuple[Bytes, Ids]:
    """Paint 3 to 20 rotated, rounded boxes of 6 to 90 pixels on the frame; return it and their ids from 1 (H, W)."""
    canvas, ids = thermal.astype(np.float32), np.zeros(thermal.shape, np.int32)
    if in_rows := rng.random() < 0.4:
        spots, angle = _rows(thermal.shape, rng)
    else:
        spots = [
            (rng.uniform(0, thermal.shape[0]), rng.uniform(0, thermal.shape[1])) for _ in range(rng.integers(3, 16))
        ]
        angle = 0.0
    length, ratio = np.exp(rng.uniform(np.log(6), np.log(60))), rng.uniform(1, 3)
    for number, (y, x) in enumerate(spots, start=1):
        if not in_rows:
            length, ratio, angle = np.exp(rng.uniform(np.log(6), np.log(90))), rng.uniform(1, 3), rng.uniform(0, np.pi)
        _paste(canvas, ids, number, (y, x), (length / 2, length / ratio / 2), angle, rng)
    return canvas.clip(0, 255).astype(np.uint8), ids


def _rows(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[list[tuple[float, float]], float]:
    """Draw the places and the angle of boxes side by side."""
    angle, apart = rng.uniform(0, np.pi), rng.uniform(10, 40)
    centre, count = np.array([rng.uniform(0, side) for side in shape]), int(rng.integers(3, 11))
    across = np.array([np.cos(angle), -np.sin(angle)]) * apart
    spots = [centre + i * across for i in range(count) if rng.random() < 0.85]
    return [(float(y), float(x)) for y, x in spots], angle


def _paste(
    canvas: NDArray[np.float32],
    ids: Ids,
    number: int,
    centre: tuple[float, float],
    half: tuple[float, float],
    angle: float,
    rng: np.random.Generator,
) -> None:
    """Paint one shape with a blurred edge, a temperature slope and sometimes a hotter or colder part."""
    reach = int(np.ceil(max(half) * 1.5)) + 3
    top, left = (max(0, int(c) - reach) for c in centre)
    part = canvas[top : int(centre[0]) + reach, left : int(centre[1]) + reach]
    if part.size == 0:
        return
    y, x = np.mgrid[: part.shape[0], : part.shape[1]].astype(np.float32)
    y, x = y + top - centre[0], x + left - centre[1]
    along = (x * np.cos(angle) + y * np.sin(angle)) / half[0]
    aside = (y * np.cos(angle) - x * np.sin(angle)) / half[1]
    power = rng.uniform(2, 8)
    inside = np.abs(along) ** power + np.abs(aside) ** power < 1
    if not inside.any():
        return
    heat = rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(12), np.log(110)))
    drawn = part[inside].mean() + heat * (1 + rng.uniform(-0.4, 0.4) * along)
    if rng.random() < 0.5:
        drawn = drawn + (np.abs(along - rng.uniform(-0.6, 0.6)) < rng.uniform(0.1, 0.4)) * heat * rng.uniform(-0.8, 0.8)
    drawn = drawn + rng.normal(0, rng.uniform(0, 5), part.shape)
    veil = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), rng.uniform(0.4, 1.2))
    part += veil * (drawn - part)
    ids[top : int(centre[0]) + reach, left : int(centre[1]) + reach][inside] = number


def _seen(thermal: Bytes, rng: np.random.Generator) -> Bytes:
    """Simulate another camera: gain, offset, black-hot, noise, blur."""
    values = thermal.astype(np.float32)
    if rng.random() < 0.15:
        values = 255 - values
    middle = values.mean()
    values = (values - middle) * rng.uniform(0.6, 1.5) + middle + rng.uniform(-30, 30)
    if rng.random() < 0.3:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.0)), np.float32)
    noisy = values + rng.normal(0, rng.uniform(0, 4), values.shape)
    return noisy.clip(0, 255).astype(np.uint8)
