"""The interface of teachers: from an image to masks, and the errors that they may raise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.recipe import (
    CocoTeacher,
    FelzenszwalbTeacher,
    PythonTeacher,
    SamTeacher,
    TransformersTeacher,
)


@dataclass(frozen=True)
class Masks:
    """A teacher's masks on one image of (H, W), in the teacher's order, which breaks ties of rank.

    Attributes:
        masks: (N, H, W) bool. predicted_iou: (N,) in [0, 1], the teacher's score of a mask. stability: (N,) in [0, 1], how little
            a mask changes with the teacher's threshold. prompts: (N,) in pixels: (x, y), a box (x0, y0, x1, y1), or ().
    """

    masks: NDArray[np.bool_]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    prompts: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        n = len(self.masks)
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_:
            raise ValueError(f"masks must be (N, H, W) bool, not {self.masks.shape} {self.masks.dtype}")
        for name in ("predicted_iou", "stability", "prompts"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{n} masks but {len(getattr(self, name))} values of {name}")
        if not (np.isfinite(self.predicted_iou).all() and np.isfinite(self.stability).all()):
            raise ValueError("predicted_iou and stability must be finite")


Teacher = Callable[[NDArray[np.uint8]], Masks]  # thermal image (H, W) -> masks
# settings of teachers that look at the pixels
Drawing = SamTeacher | TransformersTeacher | FelzenszwalbTeacher | PythonTeacher
Settings = Drawing | CocoTeacher


class TeacherError(Exception):
    """A teacher cannot be used; the message says why and what to do."""


class UnsuitableError(Exception):
    """A teacher cannot process this image; the message says why. Other images are not affected."""
