"""COCO annotation files as ready-made masks: polygons, run lengths, and compressed run lengths.

Categories, areas and boxes are not used. Crowds and annotations without a segmentation are left out and counted. Every other
fault refuses the file.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.run_lengths import from_compressed, from_run_lengths
from pretrain_sources.teachers.contract import TeacherError
from pretrain_sources.teachers.ready_file import MOST_BYTES, ReadyFile, ReadyImage, ReadyMask, WrongSizeError
from safe_io.files import read_regular

ORACLE_MARK = "oracle"  # in the `info` of a file
CROWDS, EMPTY = "annotations of crowds", "annotations without a segmentation"
MOST = float(np.finfo(np.float32).max)  # a score
Size = tuple[int, int]
Json = dict[str, Any]


def read(path: Path) -> ReadyFile:
    """Read a COCO file without decoding its masks.

    Raises:
        TeacherError: it is no COCO file, or an image, an annotation or a score is invalid.
    """
    content = _content(path)
    images = _images(path, content["images"])
    kept: dict[int | str, list[tuple[str, Json]]] = {key: [] for key in images}
    left_out: Counter[str] = Counter()
    for number, one in enumerate(content["annotations"]):
        where = f"{path}, annotation {one.get('id', f'number {number}') if isinstance(one, dict) else number}"
        if not isinstance(one, dict):
            raise TeacherError(f"{where} is not an object with image_id and segmentation")
        key = one.get("image_id")
        if not isinstance(key, int | str) or key not in images:
            raise TeacherError(f"{where} is of image {key!r:.40}, which `images` does not list: add it or remove this")
        if one.get("iscrowd"):
            left_out[CROWDS] += 1
        elif not one.get("segmentation"):
            left_out[EMPTY] += 1
        else:
            kept[key].append((where, one))
    every = [pair for pairs in kept.values() for pair in pairs]
    for names in (("score", "predicted_iou"), ("stability_score",)):
        _refuse_some_without(every, names)
    found = [
        ReadyImage(name, [_mask(where, one, size) for where, one in kept[key]]) for key, (name, size) in images.items()
    ]
    info = content.get("info")
    return ReadyFile(path, found, dict(left_out), isinstance(info, dict) and info.get(ORACLE_MARK) is True)


def _content(path: Path) -> Json:
    try:
        content = json.loads(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise TeacherError(f"cannot read the masks {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TeacherError(f"{path} is not valid JSON ({str(error)[:100]}): write it again") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise TeacherError(f"{path} is not a COCO file: it must be an object with the lists `images` and `annotations`")
    return content


def _images(path: Path, rows: Sequence[Any]) -> dict[int | str, tuple[str, Size | None]]:
    """Return id -> (file name, or the id if there is none; size (H, W) or None if it is not given)."""
    images: dict[int | str, tuple[str, Size | None]] = {}
    for number, row in enumerate(rows):
        key = row.get("id") if isinstance(row, dict) else None
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise TeacherError(f"{path}: image number {number} has no id: give it a number or a text")
        name = row.get("file_name") or str(key)
        if not isinstance(name, str):
            raise TeacherError(f"{path}, image {key}: file_name must be a text")
        if key in images:
            raise TeacherError(f"{path}: two images have the id {key}, '{images[key][0]}' and '{name}': keep one")
        size = row.get("height"), row.get("width")
        images[key] = name, size if all(isinstance(side, int) for side in size) else None
    return images


def _refuse_some_without(annotations: Sequence[tuple[str, Json]], names: Sequence[str]) -> None:
    """Refuse a file in which only some masks have this score: the others could not be ranked among them."""
    has = [any(name in one for name in names) for _, one in annotations]
    if any(has) and not all(has):
        where = annotations[has.index(False)][0]
        raise TeacherError(f"{where} has no {' or '.join(names)}, but others have: give one to all or to none")


def _mask(where: str, one: Json, listed: Size | None) -> ReadyMask:
    iou = _score(where, one, ("score", "predicted_iou"))
    return ReadyMask(iou, _score(where, one, ("stability_score",)), partial(_draw, where, one["segmentation"], listed))


def _score(where: str, one: Json, names: Sequence[str]) -> float:
    name = next((name for name in names if name in one), None)
    return 1.0 if name is None else checked_score(one[name], f"{where}: its {name}")


def checked_score(value: object, where: str) -> float:
    """Return a score. SAM's predicted IoU may be a little above 1.

    Raises:
        TeacherError: it is no finite number from 0 in single precision.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        raise TeacherError(f"{where} is {value!r:.40}, but must be a finite number from 0")
    return float(value)


def _draw(where: str, segmentation: object, listed: Size | None, size: Size) -> NDArray[np.bool_]:
    if listed not in (None, size):
        raise WrongSizeError(_sizes(listed, size))
    if isinstance(segmentation, Mapping):
        return _from_rle(where, segmentation, size)
    return _from_polygons(where, segmentation, size)


def _from_rle(where: str, rle: Mapping[str, Any], size: Size) -> NDArray[np.bool_]:
    given, counts = rle.get("size"), rle.get("counts")
    if not isinstance(given, list) or len(given) != 2 or not isinstance(counts, str | list):
        raise TeacherError(f"{where}: run lengths need `size` [height, width] and `counts`, a text or a list")
    if tuple(given) != size:
        raise WrongSizeError(_sizes(given, size))
    try:
        if isinstance(counts, str):
            return from_run_lengths(from_compressed(counts), size)
        if not all(type(run) is int and 0 <= run <= size[0] * size[1] for run in counts):
            raise ValueError("run lengths must be whole numbers from 0")
        return from_run_lengths(np.array(counts, np.int64), size)
    except ValueError as error:
        raise TeacherError(f"{where}: {error}: encode the mask again") from error


def _from_polygons(where: str, polygons: object, size: Size) -> NDArray[np.bool_]:
    from pycocotools import mask as coco_mask

    height, width = size
    if not isinstance(polygons, list) or not all(isinstance(one, list) for one in polygons):
        raise TeacherError(f"{where}: segmentation must be a list of polygons, or run lengths")
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not all(type(value) in (int, float) for value in polygon):
            raise TeacherError(f"{where}: a polygon must be x, y, x, y, ... in pixels, of three corners or more")
        # far outside of the image it is a mistake, and its outline would fill the memory
        for value, side in zip(polygon, (width, height) * (len(polygon) // 2), strict=True):
            if not math.isfinite(value) or not -side <= value <= 2 * side:
                raise TeacherError(f"{where}: polygon at {value!r:.20}, far outside of its image of {width} x {height}")
    runs = coco_mask.merge(coco_mask.frPyObjects([[float(v) for v in one] for one in polygons], height, width))
    return from_run_lengths(from_compressed(runs["counts"].decode("ascii")), size)


def _sizes(given: Any, size: Size) -> str:  # noqa: ANN401 - of the file
    return f"masks of {given[1]!s:.20} x {given[0]!s:.20}, the image {size[1]} x {size[0]}"
