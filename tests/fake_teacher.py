"""A teacher for tests: squares at positions that depend on the image, and a file that counts the calls."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pretrain_sources.teachers import Masks, offered


@offered
def make(
    calls: str = "", masks: int = 3, wrong_size: bool = False, die_after: int = 0
) -> Callable[[np.ndarray], Masks]:
    """Make a teacher of `masks` squares; `calls`: file that gets a line per call; `die_after`: number of calls that succeed."""

    def ask(image: np.ndarray) -> Masks:
        if calls:
            with open(calls, "a") as file:
                file.write("asked\n")
            if die_after and len(Path(calls).read_text().splitlines()) > die_after:
                raise KeyboardInterrupt
        height, width = (size + wrong_size for size in image.shape)
        drawn = np.zeros((masks, height, width), bool)
        place = int(image.sum(dtype=np.int64)) % 7
        for i in range(masks):
            drawn[i, place + i : place + 6 + 2 * i, i : i + 6 + i] = True
        scores = np.linspace(0.9, 0.6, masks, dtype=np.float32)
        return Masks(drawn, scores, scores[::-1].copy(), tuple((float(i), float(i)) for i in range(masks)))

    return ask


@offered
def not_a_teacher() -> int:
    return 3


@offered
def breaks() -> Callable[[np.ndarray], float]:
    return lambda image: 1 / float(image.sum() * 0)


@offered
def wants(threshold: float) -> None:
    """Has an argument that is missing in the settings."""


@offered
def tied() -> Callable[[np.ndarray], Masks]:
    """A teacher of twenty random rectangles, some empty, with random scores of which many are equal."""

    def ask(image: np.ndarray) -> Masks:
        rng = np.random.default_rng(int(image.sum(dtype=np.int64)))
        drawn = np.zeros((20, *image.shape), bool)
        for mask, (top, left, height, width) in zip(drawn, rng.integers(0, 12, (20, 4)), strict=True):
            mask[top : top + height, left : left + width] = True
        scores = rng.random((2, 20), np.float32).round(1) / np.float32(3)
        return Masks(drawn, scores[0], scores[1], ((),) * 20)

    return ask
