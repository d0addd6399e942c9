"""What the header of an image file says, and which files are refused for what it says."""

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
IGNORE = 255  # label of pixels that no loss and no score looks at

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
_BITS = {"1": 1, "I": 16, "F": 32}  # by Pillow's mode, where the header is not asked; otherwise 8
_ORIENTATIONS = range(1, 9)
# what Pillow's decoders raise for files that were cut off or damaged
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError, struct.error, zlib.error),
    *(IndexError, KeyError, TypeError, AssertionError, NotImplementedError, Image.DecompressionBombError),
)


class ImageError(ValueError):
    """A file cannot be used as an image or as a mask: `what` is wrong, and how to `mend` it (may be empty)."""

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(f"{what}; {mend}" if mend else what)
        self.what, self.mend = what, mend


@dataclass(frozen=True)
class FileFacts:
    """What the header of an image file says, whatever its name says."""

    format: str  # PNG, JPEG, TIFF, NPY, ...
    mode: str = ""  # Pillow's name for how pixels are stored; empty where Pillow does not know it
    bits: int = 8  # of one channel
    orientation: int = 1  # EXIF's; 1: as stored
    orientation_known: bool = True
    pages: int = 1  # images of full size, frames of an animation
    previews: int = 0  # reduced copies beside the image
    begins_reduced: bool = False  # the first page is such a copy
    white_is_zero: bool = False
    signed: bool = False  # and of 8 bits or fewer
    spare_channels: int = 0  # neither colour nor alpha
    planes: bool = False  # channels are stored one after the other
    lossless: bool = True

    @property
    def once_read_otherwise(self) -> bool:
        """Whether earlier versions read other grey values from the file (as it is stored, not inverted, cut to 8 bits).

        What was drawn on those must not be taken for what is drawn on these.
        """
        if self.format != "TIFF":
            return self.orientation != 1
        return self.bits > 8 and (self.white_is_zero or self.mode.startswith("RGB"))


@dataclass(frozen=True)
class ImageFile:
    """A decoded file: pixels (H, W), what it is, and what was converted or left out, as predicates of "N images"."""

    pixels: Pixels
    facts: FileFacts
    notes: tuple[str, ...] = ()


Rule = tuple[Callable[[FileFacts], bool], str, str]  # what it applies to, what is wrong, what to do
OF_ANY_FILE: tuple[Rule, ...] = (
    (lambda f: f.pages > 1, "{f.pages} pages or frames, of which one would be used", "save each as a file of its own"),
    (
        lambda f: f.begins_reduced,
        "its first page is a reduced copy of another",
        "save the full page as a file of its own",
    ),
    (
        lambda f: f.signed,
        "signed values of {f.bits} bits: negative ones would wrap around",
        "save it with unsigned values",
    ),
    (
        lambda f: f.spare_channels > 0,
        "{f.spare_channels} more channels than its colours need",
        "save the channel that is meant as a file of its own",
    ),
)


def misnamed(facts: FileFacts, name: str) -> str:
    """The note on a file whose name has the suffix of another format; empty where it has not."""
    suffix = PurePath(name).suffix.lower()
    return f"hold {facts.format} under the name {suffix}" if _FORMATS.get(suffix, facts.format) != facts.format else ""


def counted(notes: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each note: of how many files it is, and the first of them. notes: (name of a file, note)."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, note in notes:
        names[note].append(name)
    return [f"{len(found)} {note} (first: {found[0]})" for note, found in names.items()]


@contextmanager
def opened(data: bytes) -> Iterator[tuple[Image.Image | None, FileFacts]]:
    """(Pillow's image, not decoded yet, or None where Pillow does not know a TIFF, facts); what goes wrong is an ImageError."""
    try:
        try:
            image: Image.Image | None = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            if data[:4] not in _TIFF:
                raise
            image = None  # some deep TIFFs: OpenCV reads them
        yield image, _tiff_facts(data, image) if data[:4] in _TIFF else _facts(data, image)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not an image that can be read") from error
    except _DECODING_ERRORS as error:
        raise ImageError(" ".join(str(error).split()) or type(error).__name__) from error


def _facts(data: bytes, image: Image.Image | None) -> FileFacts:
    assert image is not None
    found = image.format or "unknown"
    is_first = found == "MPO"  # a JPEG with further pictures: the first is the one that is meant
    frames = getattr(image, "n_frames", 1)
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        image.load()  # EXIF may stand behind the pixels; where they are broken this must be the one that says so
    orientation, known = _orientation(image)
    return FileFacts(
        "JPEG" if found == "MPO" else found,
        image.mode,
        data[_PNG_BIT_DEPTH] if found == "PNG" else _BITS.get(image.mode[:1], 8),
        orientation,
        known,
        pages=1 if is_first else frames,
        previews=frames - 1 if is_first else 0,
        lossless=found in ("PNG", "BMP"),
    )


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """(EXIF orientation, whether it is known)."""
    try:
        tags = image.getexif()
    except _DECODING_ERRORS:
        return 1, False
    found = tags.get(ExifTags.Base.Orientation, 1)
    block = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    is_read = bool(tags) or not block  # of a block that is broken Pillow returns nothing
    return (found, is_read) if found in _ORIENTATIONS else (1, found == 0)  # some cameras write 0 for "not known"


def _tiff_facts(data: bytes, image: Image.Image | None) -> FileFacts:
    pages = list(_directories(data))
    if not pages:
        raise ImageError("not an image that can be read")
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
    """The directory of each page."""
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
    found: Any = page.get(tag, default)
    return tuple(found) if isinstance(found, tuple) else (found,)


def _is_reduced(page: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    return bool(page.get(254, 0) & 1) or page.get(255) == 2


def refuse(facts: FileFacts, rules: tuple[Rule, ...]) -> None:
    """Raises an ImageError for the first rule that applies."""
    for applies, what, mend in rules:
        if applies(facts):
            raise ImageError(what.format(f=facts), mend)
