"""Output of segment-anything's scripts/amg.py as ready-made masks: a folder for each image, with 0.png, ... and metadata.csv."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.image_files import ImageError, read_label
from pretrain_sources.lists import ListError, read_rows
from pretrain_sources.teachers.coco import checked_score
from pretrain_sources.teachers.contract import TeacherError
from pretrain_sources.teachers.ready_file import ReadyFile, ReadyImage, ReadyMask, WrongSizeError
from safe_io.files import read_regular

TABLE = "metadata.csv"
COLUMNS = ("id", "predicted_iou", "stability_score")


def read(folder: Path) -> ReadyFile:
    """Read the tables of all images; masks are in the order of their table. Hidden folders are skipped.

    Raises:
        TeacherError: there are no folders, one is a link, or a table or a mask is missing or invalid.
    """
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if not inside:
        raise TeacherError(f"{folder} has no folders: amg.py writes one for each image, with {TABLE}")
    if links := [path for path in inside if path.is_symlink()]:
        raise TeacherError(f"{links[0]} is a link, which may lead out of {folder}: copy the folder instead")
    return ReadyFile(folder, [ReadyImage(path.name, _masks(path)) for path in inside], {})


def _masks(folder: Path) -> list[ReadyMask]:
    table = folder / TABLE
    if table.is_symlink() or not table.is_file():
        raise TeacherError(f"{folder} has no {TABLE} (a file, no link): run amg.py again, or remove the folder")
    masks: dict[str, ReadyMask] = {}
    try:
        for line, (number, iou, stability) in read_rows(table, COLUMNS):
            where = f"{table}, line {line}"
            if not (number.isascii() and number.isdecimal()) or number in masks:
                raise TeacherError(f"{where}: id must be a whole number that occurs once, not '{number:.40}'")
            if not (folder / f"{number}.png").is_file():
                raise TeacherError(f"{where}: there is no {number}.png: run amg.py again, or remove the folder")
            scores = [
                _score(value, f"{where}: {name}") for name, value in zip(COLUMNS[1:], (iou, stability), strict=True)
            ]
            masks[number] = ReadyMask(scores[0], scores[1], partial(_draw, folder / f"{number}.png"))
    except ListError as error:
        raise TeacherError(str(error)) from error
    return list(masks.values())


def _score(text: str, where: str) -> float:
    try:
        value: object = float(text)
    except ValueError:
        value = text
    return checked_score(value, where)


def _draw(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        pixels = read_label(read_regular(path, links=False), path.name).pixels
    except (OSError, ImageError) as error:
        raise TeacherError(f"cannot read the mask {path}: {error}; run amg.py again") from error
    if pixels.shape != size:
        raise WrongSizeError(f"masks of {pixels.shape[1]} x {pixels.shape[0]}, the image {size[1]} x {size[0]}")
    if len(np.unique(pixels[pixels > 0])) > 1:
        raise TeacherError(f"{path} has several values besides 0: a mask has 0 outside and one other value inside")
    return pixels > 0
