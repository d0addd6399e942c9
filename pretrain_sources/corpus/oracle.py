"""Masks of a perfect teacher: the pool's oriented boxes, filled as the labels of the target are, as a COCO file."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.corpus.export import CATEGORIES, ORACLE_INFO, annotation
from pretrain_sources.corpus.manifest import CorpusError
from pretrain_sources.image_files import ImageError, read_image
from pretrain_sources.pool import PoolError, walk
from pretrain_sources.run_lengths import run_lengths
from safe_io.files import read_regular, write_whole

BOXES = Path("oriented_boxes", "unlabelled.json")  # in the folder of a target
POOL = "unlabelled"
DO_NOT_CARE = 4  # category of regions that the annotators left open
MOST_BYTES = 500_000_000


@dataclass(frozen=True)
class Written:
    """What an oracle file holds: images and masks; images without a mask; boxes that are not masks."""

    images: int
    masks: int
    blank: int
    open_regions: int


def write_oracle(folder: Path, out: Path, report: Callable[[int, int], None] = lambda done, total: None) -> Written:
    """Write a mask for each oriented box of the pool, without scores, in the order of the boxes.

    folder: of the target, with unlabelled/ and oriented_boxes/unlabelled.json: file name -> boxes, each with category_id and
    bbox_xywht (centre x, y, width, height in pixels, angle in radians). Regions that the annotators left open are no masks.

    Raises:
        CorpusError: the boxes or an image cannot be read, or an image has no entry. OSError: `out` cannot be written.
    """
    boxes, names = _boxes(folder / BOXES), _images(folder / POOL)
    if missing := [name for name in names if name not in boxes]:
        raise CorpusError(f"{folder / BOXES} has no entry for {len(missing)} images of {POOL}/, first {missing[0]}")
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    blank = left_open = 0
    for number, name in enumerate(names, start=1):
        size = _size(folder / POOL / name)
        images.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        before = len(rows)
        for box in boxes[name]:
            category, corners = _box(box, f"{folder / BOXES}: {name}")
            if category == DO_NOT_CARE:
                left_open += 1
                continue
            mask = _filled(corners, size)
            rows.append({"id": len(rows) + 1} | annotation(size, run_lengths(mask).tolist(), number))
        blank += len(rows) == before
        report(number, len(names))
    content = {"info": ORACLE_INFO, "images": images, "annotations": rows, "categories": CATEGORIES}
    write_whole(out, json.dumps(content).encode())
    return Written(len(images), len(rows), blank, left_open)


def _boxes(path: Path) -> Mapping[str, Sequence[Any]]:
    try:
        content = json.loads(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror}; it holds the pool's oriented boxes") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is not valid JSON ({str(error)[:100]})") from error
    if not isinstance(content, dict) or not all(isinstance(boxes, list) for boxes in content.values()):
        raise CorpusError(f"{path} must map each file name to a list of boxes")
    return content


def _images(root: Path) -> list[str]:
    if not root.is_dir():
        raise CorpusError(f"no folder {root}: name the folder of a target that holds {POOL}/ and {BOXES}")
    try:
        return [name for name, _ in walk(root)[0]]
    except PoolError as error:
        raise CorpusError(str(error)) from error


def _size(path: Path) -> tuple[int, int]:
    try:
        height, width = read_image(read_regular(path), path.name).pixels.shape
    except (OSError, ImageError) as error:
        raise CorpusError(f"cannot read the image {path}: {error}") from error
    return height, width


def _box(box: object, where: str) -> tuple[object, tuple[float, ...]]:
    values = box.get("bbox_xywht") if isinstance(box, dict) else None
    if not isinstance(box, dict) or not isinstance(values, list) or len(values) != 5:
        raise CorpusError(f"{where}: a box needs category_id and the five numbers of bbox_xywht")
    if not all(type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e6 for value in values):
        raise CorpusError(f"{where}: bbox_xywht {values!s:.80} must be finite numbers below a million")
    return box.get("category_id"), tuple(map(float, values))


def _filled(box: tuple[float, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill a box: corners cut to whole pixels, then filled with the border, as in the label maps of the target."""
    import cv2

    x, y, width, height, angle = box
    corners = cv2.boxPoints(((x, y), (width, height), math.degrees(angle)))
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [corners.astype(np.int32)], 1)
    return canvas.astype(bool)
