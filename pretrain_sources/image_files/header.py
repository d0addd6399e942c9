"""Headers of image files, and the rules by which files are refused."""

import io
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

Pixels = NDArray[np.uint8]
IGNORE = 255  # label of pixels that losses and scores ignore

_PNG_BIT_DEPTH = 24  # offset of that byte in the file
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # photometric interpretation -> channels of colour
_TIFF_LOSSLESS = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000)
_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".npy": "NPY",
}
_BITS = {"1": 1, "I": 16, "F": 32}  # by Pillow's mode, for formats whose header is not parsed; otherwise 8
_ORIENTATIONS = range(1, 9)
# raised by Pillow's decoders for truncated or damaged files
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError, struct.error, zlib.error),
    *(IndexError, KeyError, TypeError, AssertionError, NotImplementedError, Image.DecompressionBombError),
)


class ImageError(ValueError):
    """A file cannot be used as an image or as a mask: `what` is wrong, and the fix `mend` (may be empty)."""

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(f"{what}; {mend}" if mend else what)
        self.what, self.mend = what, mend


@dataclass(frozen=True)
class FileFacts:
    """Facts from the header of an image file, regardless of its name."""

    format: str  # PNG, JPEG, TIFF, NPY, ...
    mode: str = ""  # Pillow's mode; empty if Pillow cannot read the file
    bits: int = 8  # per channel
    orientation: int = 1  # EXIF's; 1: as stored
    orientation_known: bool = True
    pages: int = 1  # full-size images or frames of an animation
    previews: int = 0  # reduced copies of the image
    begins_reduced: bool = False  # the first page is a reduced copy
    white_is_zero: bool = False
    signed: bool = False  # signed values of at most 8 bits
    spare_channels: int = 0  # neither colour nor alpha
    planes: bool = False  # channels are stored one after the other
    lossless: bool = True

    @property
    def once_read_otherwise(self) -> bool:
        """Return whether earlier versions read other grey values from the file (not rotated, not inverted, cut to 8 bits).

        Masks cached by those versions must not be used.
        """
        if self.format != "TIFF":
            return self.orientation != 1
        return self.bits > 8 and (self.white_is_zero or self.mode.startswith("RGB"))


@dataclass(frozen=True)
class ImageFile:
    """A decoded file: pixels (H, W), facts, and notes on conversions, as predicates of "N images"."""

    pixels: Pixels
    facts: FileFacts
    notes: tuple[str, ...] = ()


Rule = tuple[Callable[[FileFacts], bool], str, str]  # condition, what is wrong, what to do
OF_ANY_FILE: tuple[Rule, ...] = (
    (lambda f: f.pages > 1, "{f.pages} pages or frames, of which only one would be used", "save each as its own file"),
    (
        lambda f: f.begins_reduced,
        "its first page is a reduced copy of another page",
        "save the full page as its own file",
    ),
    (
        lambda f: f.signed,
        "signed values of {f.bits} bits: negative ones would wrap around",
        "save it with unsigned values",
    ),
    (
        lambda f: f.spare_channels > 0,
        "{f.spare_channels} more channels than its colours need",
        "save the channel to use as its own file",
    ),
)


def misnamed(facts: FileFacts, name: str) -> str:
    """Return a note if the file name has the suffix of another format, else an empty string."""
    suffix = PurePath(name).suffix.lower()
    return f"hold {facts.format} under the name {suffix}" if _FORMATS.get(suffix, facts.format) != facts.format else ""


def counted(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each distinct note, with the number of files and the first one. notes: (file name, note)."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, note in notes:
        names[note].append(name)
    return [f"{len(files)} {note} (first: {files[0]})" for note, files in names.items()]


@contextmanager
def opened(data: bytes) -> Iterator[tuple[Image.Image | None, FileFacts]]:
    """Yield (Pillow's image before decoding, or None for a TIFF that Pillow cannot read, facts). Errors become ImageError."""
    try:
        try:
            image: Image.Image | None = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            if data[:4] not in _TIFF:
                raise
            image = None  # OpenCV reads some deep TIFFs that Pillow cannot
        yield image, _tiff_facts(data, image) if data[:4] in _TIFF else _facts(data, image)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not a readable image") from error
    except _DECODING_ERRORS as error:
        raise ImageError(" ".join(str(error).split()) or type(error).__name__) from error


def _facts(data: bytes, image: Image.Image | None) -> FileFacts:
    assert image is not None
    kind = image.format or "unknown"
    is_mpo = kind == "MPO"  # a JPEG with further pictures, of which the first is used
    frames = getattr(image, "n_frames", 1)
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        image.load()  # EXIF may follow the pixels; damaged pixels must raise here
    orientation, known = _orientation(image)
    return FileFacts(
        "JPEG" if is_mpo else kind,
        image.mode,
        data[_PNG_BIT_DEPTH] if kind == "PNG" else _BITS.get(image.mode[:1], 8),
        orientation,
        known,
        pages=1 if is_mpo else frames,
        previews=frames - 1 if is_mpo else 0,
        lossless=kind in ("PNG", "BMP"),
    )


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """Return (EXIF orientation, whether it is known)."""
    try:
        tags = image.getexif()
    except _DECODING_ERRORS:
        return 1, False
    value = tags.get(ExifTags.Base.Orientation, 1)
    block = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    is_read = bool(tags) or not block  # Pillow returns no tags for a damaged block
    return (value, is_read) if value in _ORIENTATIONS else (1, value == 0)  # some cameras write 0 for "unknown"


def _tiff_facts(data: bytes, image: Image.Image | None) -> FileFacts:
    pages = list(_directories(data))
    if not pages:
        raise ImageError("not a readable image")
    first = pages[0]
    reduced = [_is_reduced(page) for page in pages]
    bits, kinds = max(_many(first, 258, 1)), _many(first, 339, 1)
    channels, photometric = first.get(277, 1), first.get(262, 1)
    alpha = sum(kind in (1, 2) for kind in _many(first, 338, 0)) if 338 in first else 0
    orientation = first.get(274, 1)
    return FileFacts(
        "TIFF",
        image.mode if image is not None else "",
        bits,
        orientation if orientation in _ORIENTATIONS else 1,
        pages=max(1, reduced.count(False)),
        previews=sum(reduced[1:]),
        begins_reduced=reduced[0] and len(pages) > 1,
        white_is_zero=photometric == 0,
        signed=2 in kinds and bits <= 8,
        spare_channels=max(0, channels - alpha - _TIFF_COLOURS.get(photometric, channels)),
        planes=channels > 1 and first.get(284, 1) == 2,
        lossless=first.get(259, 1) in _TIFF_LOSSLESS,
    )


def _directories(data: bytes) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    """Yield the directory of each page."""
    big = 43 in data[2:4]
    ends = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
    place, seen, file = ends.next, set[int](), io.BytesIO(data)
    while place and place not in seen and place < len(data):
        seen.add(place)
        page = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
        file.seek(place)
        page.load(file)
        yield page
        place = page.next


def _many(page: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> tuple[int, ...]:
    value: Any = page.get(tag, default)
    return tuple(value) if isinstance(value, tuple) else (value,)


def _is_reduced(page: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    return bool(page.get(254, 0) & 1) or page.get(255) == 2


def refuse(facts: FileFacts, rules: tuple[Rule, ...]) -> None:
    """Raise an ImageError for the first rule that applies."""
    for applies, what, mend in rules:
        if applies(facts):
            raise ImageError(what.format(f=facts), mend)
