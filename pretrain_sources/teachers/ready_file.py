"""What files of ready-made masks hold, in any format."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# json reads a file whole, and 100 MB of polygons took 0.6 GB of memory, so the largest file takes 3 GB
MOST_BYTES = 500_000_000


class WrongSizeError(Exception):
    """A mask has another size than its image; the message gives both."""


@dataclass(frozen=True)
class ReadyMask:
    """A mask that is decoded when it is needed.

    Attributes:
        predicted_iou, stability: its scores, 1 where the file has none. draw: returns it as (H, W) bool for an image of that
            size; raises WrongSizeError or TeacherError.
    """

    predicted_iou: float
    stability: float
    draw: Callable[[tuple[int, int]], NDArray[np.bool_]]


@dataclass(frozen=True)
class ReadyImage:
    """The masks of an image, in the file's order. name: as the file writes it."""

    name: str
    masks: Sequence[ReadyMask]


@dataclass(frozen=True)
class ReadyFile:
    """All masks of a file or folder.

    Attributes:
        left_out: reason -> number of annotations that are not used. oracle: the file says that people annotated its masks for
            the pool, so that they are an upper bound.
    """

    path: Path
    images: Sequence[ReadyImage]
    left_out: Mapping[str, int]
    oracle: bool = False
