"""What sam-tiny learns from: pictures with segments, drawn anew for every step and a function of (seed, step, place) alone.

scenes    rendered frames; their instances, and each connected piece of ground, wall or sky
real      unlabelled thermal frames where they are at hand; segments that a classical method finds in them
pasted    either of them with warm and cold shapes put on top, whose masks are known: small things as a drone sees them
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

LEAST_PX = 32  # pixels of a segment, in the picture
STUFF = 0.1  # how often a piece of ground, wall or sky is asked for, beside an instance
WHOLE = 0.5  # share of frames that are taken whole
CROPS = (0.35, 1.0)  # sides of the others, as shares of the frame's
REAL = 0.4  # share of pictures from real frames, where there are any
PASTED_ON_REAL, PASTED_ON_SCENES = 0.75, 0.2  # shares of these with shapes on top, and of those
SCENES = ((240, 320), (480, 640))  # smallest and largest size that is rendered
SCALES = (120.0, 400.0)  # of the classical segments

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Picture:
    """A frame and what can be asked for in it.

    Attributes:
        thermal: (H, W), its long side 384 pixels. masks: (N, H, W), N >= 1. weights: (N,) how often each is asked for.
    """

    thermal: Bytes
    masks: Bools
    weights: NDArray[np.float64]


def picture(real: Sequence[Path], seed: int, step: int, place: int) -> Picture:
    """The picture at this place of the batch of a step. real: thermal files, may be none."""
    for attempt in range(100):
        rng = np.random.default_rng(derive_seed("sam-tiny picture", seed, step, place, attempt))
        found = _picture(real, rng)
        if len(found.masks):
            return found
    raise ValueError("a hundred pictures without a segment: are the real frames empty?")


def _picture(real: Sequence[Path], rng: np.random.Generator) -> Picture:
    masks: Bools | None = None
    if real and rng.random() < REAL:
        frame = decode_thermal(real[int(rng.integers(len(real)))].read_bytes())
        thermal, _ = _cut(frame, np.zeros(frame.shape, np.int32), rng)
        if rng.random() >= PASTED_ON_REAL:
            found = open_teacher(FelzenszwalbTeacher(scales=SCALES, min_size=LEAST_PX), Path())(thermal)
            masks, weights = found.masks, (found.predicted_iou * found.stability).astype(np.float64)
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
    weights = weights * masks.sum((1, 2)) ** 0.25  # small ones are many
    return Picture(_seen(thermal, rng), masks[weights > 0], weights[weights > 0])


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """(height, width) to render at."""
    share = rng.random()
    height, width = (int(small + share * (large - small)) // 2 * 2 for small, large in zip(*SCENES, strict=True))
    return height, width


def _pieces(labels: Bytes, instances: NDArray[np.uint16]) -> Ids:
    """(H, W) the connected pieces of everything that is no instance, numbered from 1; 0 elsewhere."""
    numbers, count = np.zeros(labels.shape, np.int32), 0
    for label in np.unique(labels[instances == 0]):
        some, found = cv2.connectedComponents(((labels == label) & (instances == 0)).astype(np.uint8), connectivity=4)
        numbers[found > 0] = found[found > 0] + count
        count += some - 1
    return numbers


def _cut(frame: Bytes, ids: Ids, rng: np.random.Generator) -> tuple[Bytes, Ids]:
    """A part of the frame (or all of it), turned over now and then, its long side 384 pixels; and the same part of `ids`."""
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
    """(N, H, W) of every number that has enough pixels."""
    counts = np.bincount(ids.ravel())
    numbers = 1 + np.flatnonzero(counts[1:] >= LEAST_PX)
    masks: Bools = ids[None] == numbers[:, None, None]
    return masks


def _pasted(thermal: Bytes, rng: np.random.Generator) -> tuple[Bytes, Ids]:
    """The frame with 3 to 20 turned, rounded boxes of 6 to 90 pixels on it, and their numbers from 1 (H, W)."""
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
    """Where things stand side by side, and how they are turned."""
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
    """One shape, its edge blurred, with a slope of heat along it and now and then a hotter or colder part."""
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
    """As another camera would show it: gain, offset, black-hot, noise, blur."""
    values = thermal.astype(np.float32)
    if rng.random() < 0.15:
        values = 255 - values
    middle = values.mean()
    values = (values - middle) * rng.uniform(0.6, 1.5) + middle + rng.uniform(-30, 30)
    if rng.random() < 0.3:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.0)), np.float32)
    noisy = values + rng.normal(0, rng.uniform(0, 4), values.shape)
    return noisy.clip(0, 255).astype(np.uint8)
