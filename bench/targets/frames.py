"""Labelled frames of a target: reading and checking them."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_sources.file_state import FactCache, stamped
from pretrain_sources.hashing import fingerprint
from pretrain_sources.image_files import (
    IGNORE,
    MASK_MEND,
    ImageCoding,
    ImageError,
    ImageFile,
    LabelCoding,
    Pixels,
    SizeMismatchError,
    UnknownLabelError,
    class_pixels,
    read_image,
    read_label,
)
from results.store import cannot_write
from safe_io.files import read_regular

LEAST_SIDE = 8  # of an image, in pixels
CACHED = "frames 2"  # increase when the facts of a frame are computed differently


@dataclass(frozen=True)
class Coding:
    """How a target codes grey values and labels. None: images and index masks of 8 bits, as they are."""

    images: ImageCoding | None = None
    labels: LabelCoding | None = None

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the coding, part of the content hash of a target whose files are not plain."""
        images, labels = self.images, self.labels
        return fingerprint(
            {
                "images": None if images is None else [images.channel, images.limits, images.clip, images.percentiles],
                "labels": None if labels is None else [sorted(labels.values.items()), sorted(labels.colours.items())],
            }
        )


PLAIN = Coding()


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


class DeepImageError(ImageError):
    """An image has more than 8 bits, and the target's card does not say how to scale it."""


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


def decode_image(data: bytes, coding: Coding = PLAIN) -> Pixels:
    """Decode an image to (H, W) grey values, see `open_image`."""
    return open_image(data, coding).pixels


def decode_mask(data: bytes, coding: Coding = PLAIN) -> Pixels:
    """Decode a label map to (H, W) labels."""
    return read_label(data, coding=coding.labels).pixels


def open_image(data: bytes, coding: Coding, name: str = "") -> ImageFile:
    """Decode an image. name: of its file, to check its suffix.

    Raises:
        ImageError: it cannot be decoded or is refused. DeepImageError: it has more than 8 bits, and the card says nothing of them.
    """
    image = read_image(data, name, coding=coding.images)
    if image.facts.bits > 8 and coding.images is None:
        raise DeepImageError(
            f"16-bit or float image (mode {image.facts.mode or image.facts.format})",
            "set `range` or `percentiles` in the target's card, or save it with 8 bits",
        )
    return image


def examine(frame: Frame, num_classes: int, coding: Coding = PLAIN) -> FrameFacts:
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
        image = open_image(image_bytes, coding, frame.image.name)
    except ImageError as error:
        return FrameFacts(f"{frame.image}: {error.what}", error.mend or "copy the images again; they must be 8-bit")
    try:
        label = read_label(label_bytes, frame.label.name, coding.labels)
    except ImageError as error:
        return FrameFacts(f"{frame.label}: {error.what}", error.mend or MASK_MEND)
    if twin_bytes != label_bytes and not _same_labels(label.pixels, twin_bytes, coding):
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
    if min(height, width) < LEAST_SIDE:
        return FrameFacts(f"{frame.image}: {width}x{height} pixels", f"a side needs {LEAST_SIDE} pixels at least")
    digests = (hashlib.sha256(image_bytes).hexdigest(), hashlib.sha256(label_bytes).hexdigest())
    notes = (*(f"images {note}" for note in image.notes), *(f"masks {note}" for note in label.notes))
    return FrameFacts(None, "", *digests, height, width, pixels, notes)


def examine_all(
    frames: Iterable[Frame],
    num_classes: int,
    cache: Path | None,
    report: Callable[[int, int], None],
    coding: Coding = PLAIN,
) -> dict[Frame, FrameFacts]:
    """Examine every frame. With a `cache` file, unchanged files are not read again.

    See `pretrain_sources.file_state.stamp` for how changes are detected.
    """
    kind = f"{num_classes}{'' if coding == PLAIN else f' {coding.digest}'}"
    keys = {frame: _key(frame, kind) for frame in frames}
    known = FactCache(cache, CACHED, decode=_facts, encode=asdict, is_sound=lambda facts: facts.problem is None)
    wanted = {key: frame for frame, key in keys.items()}
    try:
        facts = known.look_up(wanted, functools.partial(examine, num_classes=num_classes, coding=coding), report)
    except OSError as error:  # `examine` raises none
        raise cannot_write(cache or Path(), error) from error
    return {frame: facts[key] for frame, key in keys.items()}


def _key(frame: Frame, kind: str) -> str:
    paths = (frame.image, frame.label, *([frame.twin] if frame.twin else []))
    try:
        return f"{kind} {stamped(*paths)}"
    except (OSError, ValueError):
        return f"missing {frame.id} {' '.join(map(str, paths))}"


def _facts(row: Mapping[str, Any]) -> FrameFacts:
    """Build facts from the JSON of their `asdict`."""
    return FrameFacts(**{**row, "pixels": tuple(row["pixels"]), "notes": tuple(row["notes"])})


def _same_labels(label: Pixels, twin: bytes, coding: Coding) -> bool:
    try:
        return np.array_equal(label, decode_mask(twin, coding))
    except ImageError:
        return False
