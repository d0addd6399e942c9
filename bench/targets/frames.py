"""Labelled frames of a target: reading and checking them."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_sources.file_state import FactCache, stamped
from pretrain_sources.image_files import (
    IGNORE,
    MASK_MEND,
    ImageError,
    ImageFile,
    Pixels,
    SizeMismatchError,
    UnknownLabelError,
    class_pixels,
    decode_label,
    read_image,
    read_label,
)
from results.store import cannot_write
from safe_io.files import read_regular

CACHED = "frames 2"  # increase when the facts of a frame are computed differently


@dataclass(frozen=True)
class Frame:
    """A thermal image with its label map. Frames of one `group` are not independent of each other."""

    id: str
    image: Path
    label: Path
    group: str
    twin: Path | None = None  # a second label map that must be identical


@dataclass(frozen=True)
class Listing:
    """The frames of a target by split, and notes for the user about its folder."""

    splits: Mapping[str, list[Frame]]
    notes: tuple[str, ...] = ()


class LayoutError(Exception):
    """A folder does not have the expected layout; the message lists every problem, one a line."""


@dataclass(frozen=True)
class FrameFacts:
    """The facts of a frame's files. `problem` is None where the frame can be used."""

    problem: str | None = None
    mend: str = ""  # how to fix the problem
    image_sha256: str = ""
    label_sha256: str = ""
    height: int = 0
    width: int = 0
    pixels: tuple[int, ...] = ()  # label pixels of each class, ignore last
    notes: tuple[str, ...] = ()  # what was converted or ignored: "images ..." or "masks ..."


def decode_image(data: bytes) -> Pixels:
    """Decode an 8-bit image to (H, W) grey values.

    Raises:
        ImageError: it cannot be decoded or is refused, or has more than 8 bits.
    """
    return _shallow(read_image(data)).pixels


def _shallow(image: ImageFile) -> ImageFile:
    if image.facts.bits > 8:
        raise ImageError(f"16-bit or float image (mode {image.facts.mode or image.facts.format})")
    return image


def examine(frame: Frame, num_classes: int) -> FrameFacts:
    """Read both files of a frame and return their facts, or the problem. Never raises for a bad file."""
    try:
        image_bytes = read_regular(frame.image)
        label_bytes = read_regular(frame.label)
        twin_bytes = read_regular(frame.twin) if frame.twin else label_bytes
    except ValueError as error:
        return FrameFacts(f"{frame.id!r}: {error}", "not a file name; save the list as plain UTF-8 text")
    except OSError as error:
        return FrameFacts(
            f"{error.filename}: {error.strerror}", "copy the missing files, or remove their lines from the list"
        )
    try:
        image = _shallow(read_image(image_bytes, frame.image.name))
    except ImageError as error:
        return FrameFacts(f"{frame.image}: {error.what}", error.mend or "copy the images again; they must be 8-bit")
    try:
        label = read_label(label_bytes, frame.label.name)
    except ImageError as error:
        return FrameFacts(f"{frame.label}: {error.what}", error.mend or MASK_MEND)
    if twin_bytes != label_bytes and not _same_labels(label.pixels, twin_bytes):
        return FrameFacts(
            f"{frame.label} and {frame.twin} differ", "move the mask folder that should not be used elsewhere"
        )
    try:
        pixels = class_pixels(label, image, num_classes)
    except SizeMismatchError as error:
        turned = f" (rotated by EXIF orientation {image.facts.orientation})" * (image.facts.orientation != 1)
        return FrameFacts(f"{frame.label}: mask of {error}{turned}", "masks and images must have the same size")
    except UnknownLabelError as error:
        return FrameFacts(
            f"{frame.label}: {error}",
            f"labels must be 0..{num_classes - 1} or {IGNORE}; is this the right mask folder?",
        )
    height, width = image.pixels.shape
    digests = (hashlib.sha256(image_bytes).hexdigest(), hashlib.sha256(label_bytes).hexdigest())
    notes = (*(f"images {note}" for note in image.notes), *(f"masks {note}" for note in label.notes))
    return FrameFacts(None, "", *digests, height, width, pixels, notes)


def examine_all(
    frames: Iterable[Frame], num_classes: int, cache: Path | None, report: Callable[[int, int], None]
) -> dict[Frame, FrameFacts]:
    """Examine every frame. With a `cache` file, unchanged files are not read again.

    See `pretrain_sources.file_state.stamp` for how changes are detected.
    """
    keys = {frame: _key(frame, num_classes) for frame in frames}
    known = FactCache(cache, CACHED, decode=_facts, encode=asdict, is_sound=lambda facts: facts.problem is None)
    wanted = {key: frame for frame, key in keys.items()}
    try:
        facts = known.look_up(wanted, functools.partial(examine, num_classes=num_classes), report)
    except OSError as error:  # `examine` raises none
        raise cannot_write(cache or Path(), error) from error
    return {frame: facts[key] for frame, key in keys.items()}


def _key(frame: Frame, num_classes: int) -> str:
    paths = (frame.image, frame.label, *([frame.twin] if frame.twin else []))
    try:
        return f"{num_classes} {stamped(*paths)}"
    except (OSError, ValueError):
        return f"missing {frame.id} {' '.join(map(str, paths))}"


def _facts(row: Mapping[str, Any]) -> FrameFacts:
    """Build facts from the JSON of their `asdict`."""
    return FrameFacts(**{**row, "pixels": tuple(row["pixels"]), "notes": tuple(row["notes"])})


def _same_labels(label: Pixels, twin: bytes) -> bool:
    try:
        return np.array_equal(label, decode_label(twin))
    except ImageError:
        return False
