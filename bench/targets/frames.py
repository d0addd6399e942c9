"""One labelled frame of a target: reading it, and finding out whether it can be used."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pretrain_sources.images import (
    IGNORE,
    MASK_MEND,
    ImageError,
    ImageFile,
    Pixels,
    decode_label,
    read_image,
    read_label,
    strange_labels,
)
from results.store import write_atomic
from safe_io.files import read_regular, sealed, stamp, unsealed

CACHED = "frames 2"  # raised when the facts of the same frame are found in another way


@dataclass(frozen=True)
class Frame:
    """A thermal image with its label map. Frames of one `group` are not independent of each other."""

    id: str
    image: Path
    label: Path
    group: str
    twin: Path | None = None  # a second label map that must say the same


@dataclass(frozen=True)
class Listing:
    """What a target's reader found: frames by split, and what a user should know about the folder."""

    splits: Mapping[str, list[Frame]]
    notes: tuple[str, ...] = ()


class LayoutError(Exception):
    """A folder is not laid out as it must be; the message lists everything that was found, a line each."""


@dataclass(frozen=True)
class FrameFacts:
    """What one look at a frame's two files found. `problem` is None where it can be used."""

    problem: str | None = None  # what is wrong
    mend: str = ""  # and what to do
    image_sha256: str = ""
    label_sha256: str = ""
    height: int = 0
    width: int = 0
    pixels: tuple[int, ...] = ()  # label pixels of each class, ignore last
    notes: tuple[str, ...] = ()  # what was converted or left out: "images ..." or "masks ..."


def decode_image(data: bytes) -> Pixels:
    """(H, W) grey values of an encoded 8-bit image.

    Raises:
        ImageError: it cannot be decoded or is refused, or has more than 8 bits.
    """
    return _shallow(read_image(data)).pixels


def _shallow(image: ImageFile) -> ImageFile:
    if image.facts.bits > 8:
        raise ImageError(f"16-bit or float image (mode {image.facts.mode or image.facts.format})")
    return image


def examine(frame: Frame, num_classes: int) -> FrameFacts:
    """Reads both files and says what they hold, or what is wrong with them. Never raises for a bad file."""
    try:
        image_bytes = read_regular(frame.image)
        label_bytes = read_regular(frame.label)
        twin_bytes = read_regular(frame.twin) if frame.twin else label_bytes
    except ValueError as error:
        return FrameFacts(f"{frame.id!r}: {error}", "this is no file name; save the list as plain UTF-8 text")
    except OSError as error:
        return FrameFacts(
            f"{error.filename}: {error.strerror}", "copy the missing files, or take their lines out of the list"
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
            f"{frame.label} and {frame.twin} differ", "move the mask folder aside that you do not want to be used"
        )
    height, width = image.pixels.shape
    if label.pixels.shape != image.pixels.shape:
        sizes = f"{label.pixels.shape[1]}x{label.pixels.shape[0]}, its image {width}x{height}"
        turned = f" (turned by EXIF orientation {image.facts.orientation})" * (image.facts.orientation != 1)
        return FrameFacts(f"{frame.label}: mask of {sizes}{turned}", "masks and images must have the same size")
    counts = np.bincount(label.pixels.ravel(), minlength=256)
    if strange := strange_labels(counts, num_classes):
        return FrameFacts(
            f"{frame.label}: {strange}",
            f"labels must be 0..{num_classes - 1} or {IGNORE}; is this the right mask folder?",
        )
    pixels = tuple(int(n) for n in (*counts[:num_classes], counts[IGNORE]))
    digests = (hashlib.sha256(image_bytes).hexdigest(), hashlib.sha256(label_bytes).hexdigest())
    notes = (*(f"images {note}" for note in image.notes), *(f"masks {note}" for note in label.notes))
    return FrameFacts(None, "", *digests, height, width, pixels, notes)


def examine_all(
    frames: Iterable[Frame], num_classes: int, cache: Path | None, report: Callable[[int, int], None]
) -> dict[Frame, FrameFacts]:
    """The facts of every frame. Files that have not changed since the last time are not read again, if `cache` names a file.

    `safe_io.files.stamp` says by what a change is noticed.
    """
    frames = list(dict.fromkeys(frames))
    known = _read_cache(cache)
    keys = {frame: _key(frame, num_classes) for frame in frames}
    new = [frame for frame in frames if keys[frame] not in known]
    facts = {frame: known[keys[frame]] for frame in frames if keys[frame] in known}
    with ThreadPoolExecutor() as pool:  # decoding releases the GIL
        for done, (frame, found) in enumerate(
            zip(new, pool.map(lambda f: examine(f, num_classes), new), strict=True), start=1
        ):
            facts[frame] = found
            report(done, len(new))
    if cache is not None and new:
        sound = {keys[f]: asdict(found) for f, found in facts.items() if found.problem is None}
        write_atomic(cache, sealed(json.dumps(sound).encode(), CACHED))
    return facts


def _key(frame: Frame, num_classes: int) -> str:
    stamps = []
    for path in (frame.image, frame.label, *([frame.twin] if frame.twin else [])):
        try:
            info = path.stat()
        except (OSError, ValueError):
            return f"missing {path}"
        stamps.append(f"{path} {stamp(info)}")
    return f"{num_classes} {' '.join(stamps)}"


def _read_cache(cache: Path | None) -> Mapping[str, FrameFacts]:
    if cache is None or not cache.is_file():
        return {}
    try:
        rows = json.loads(unsealed(cache.read_bytes(), CACHED))
        lists = ("pixels", "notes")
        return {key: FrameFacts(**row | {name: tuple(row[name]) for name in lists}) for key, row in rows.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # a damaged cache is no cache


def _same_labels(label: Pixels, twin: bytes) -> bool:
    try:
        return np.array_equal(label, decode_label(twin))
    except ImageError:
        return False
