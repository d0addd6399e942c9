"""Decoding thermal images of any depth, and label maps: their pixels, and what the file is that they come from.

Nothing is dropped or converted in silence. What can change a label or a grey value unnoticed is refused, with what to do about it.
The rest is noted: `bench data check` and `bench corpus check` report the notes. Not seen: damage inside the compressed data of a
JPEG, which its decoder fills in without an error.
"""

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
Array = NDArray[np.generic]
IGNORE = 255  # label of pixels that no loss and no score looks at
CLIP_PERCENT = (0.5, 99.5)  # of a frame deeper than 8 bits: these percentiles become 0 and 255
MASK_MEND = "masks must be index or palette PNGs of 8 bits"
COLOUR_STEP = 3  # channels of a grey JPEG differ by so much through rounding

_PNG_BIT_DEPTH = 24  # offset of that byte in the file
_NPY = b"\x93NUMPY"
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
_OF_ANY_FILE: tuple[Rule, ...] = (
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
_OF_IMAGES: tuple[Rule, ...] = (
    *_OF_ANY_FILE,
    (
        lambda f: f.planes and f.bits > 8,
        "channels of {f.bits} bits in separate planes",
        "save it with interleaved channels",
    ),
)
_OF_MASKS: tuple[Rule, ...] = (
    (lambda f: not f.lossless, "{f.format}, whose compression can change labels", f"{MASK_MEND}; export them again"),
    *_OF_ANY_FILE,
    (lambda f: f.mode not in ("L", "P"), "mask of mode {f.mode}, not one 8-bit channel", MASK_MEND),
    (
        lambda f: f.mode == "L" and f.bits != 8,
        "grey {f.format} of {f.bits} bits: reading it would scale the labels",
        MASK_MEND,
    ),
    (lambda f: f.white_is_zero, "a white-is-zero TIFF: reading it would invert the labels", MASK_MEND),
    (
        lambda f: f.orientation != 1,
        "mask with EXIF orientation {f.orientation}: whether it lies as its image does is not known",
        "where it lies right as it is stored: exiftool -Orientation= FILE; where not: mogrify -auto-orient FILE",
    ),
)


def decode_thermal(data: bytes) -> Pixels:
    """(H, W) grey values of an encoded image or .npy array of any depth: the pixels of `read_image`."""
    return read_image(data).pixels


def decode_label(data: bytes) -> Pixels:
    """(H, W) class indices of an index PNG or a palette PNG: the pixels of `read_label`."""
    return read_label(data).pixels


def read_image(data: bytes, name: str = "", side: int | None = None) -> ImageFile:
    """An encoded image or .npy array of any depth as grey values. name: of its file, whose suffix may say something else.

    8 bits stay as they are (colours become grey). Deeper frames, 16 bits or float, are clipped to the frame's own 0.5 and 99.5
    percentiles and scaled to 0..255; three channels are averaged first. EXIF orientation and white-is-zero are applied. side:
    a JPEG may come smaller, with sides of at least so many pixels.

    Raises:
        ImageError: it cannot be decoded, holds values that are not finite, or is refused: `_OF_IMAGES`.
    """
    if not data:
        raise ImageError("the file is empty")
    if data[:6] == _NPY:
        return _read_array(data, name)
    with _opened(data) as (image, facts):
        _refuse(facts, _OF_IMAGES)
        notes = _notes(facts, name)
        if image is None or facts.bits > 8:
            pixels, more = _deep(data, image, facts)
            return ImageFile(pixels, facts, (*notes, *more))
        if side is not None and facts.format == "JPEG":
            image.draft("L", (side, side))  # skips rows and columns beyond what is needed
        notes += _notes_of_8_bits(image)
        grey = np.asarray(image.convert("L"))
        pixels = grey if facts.format == "TIFF" else _turned(grey, facts.orientation)  # Pillow turns a TIFF itself
        return ImageFile(pixels, facts, (*notes, *_note_constant(pixels)))


def read_label(data: bytes, name: str = "") -> ImageFile:
    """An index PNG or a palette PNG as class indices; of a palette the index is the label.

    Raises:
        ImageError: it cannot be decoded, is not one 8-bit channel, or is refused: `_OF_MASKS`.
    """
    if not data:
        raise ImageError("the file is empty")
    with _opened(data) as (image, facts):
        if image is None:
            raise ImageError("not an image that can be read", MASK_MEND)
        _refuse(facts, _OF_MASKS)
        pixels = np.asarray(image)
        notes = [_misnamed(facts, name)] if _misnamed(facts, name) else []
        if image.has_transparency_data:
            notes.append("have transparent pixels or colours, which are labels like others")
        if image.mode == "P" and _grey_palette_misleads(image, pixels):
            notes.append("have a palette of greys that are not their indices; the index is the label")
        return ImageFile(pixels, facts, tuple(notes))


def strange_labels(counts: NDArray[np.int64], num_classes: int) -> str:
    """The label values that no class has, with their pixels, as text; empty where there are none. counts: (256,) by value."""
    strange = [int(v) for v in np.flatnonzero(counts[:IGNORE]) if v >= num_classes]
    shown = ", ".join(f"{value} on {counts[value]} px" for value in strange[:5])
    return f"label {shown}{f' and {len(strange) - 5} more' if len(strange) > 5 else ''}" if strange else ""


def counted(notes: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each note: of how many files it is, and the first of them. notes: (name of a file, note)."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, note in notes:
        names[note].append(name)
    return [f"{len(found)} {note} (first: {found[0]})" for note, found in names.items()]


# -- what the header says ------------------------------------------------------------------------------------------------


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[Image.Image | None, FileFacts]]:
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


def _refuse(facts: FileFacts, rules: tuple[Rule, ...]) -> None:
    for applies, what, mend in rules:
        if applies(facts):
            raise ImageError(what.format(f=facts), mend)


# -- notes ---------------------------------------------------------------------------------------------------------------


def _notes(facts: FileFacts, name: str) -> list[str]:
    """What the header alone says, of images."""
    notes = {
        _misnamed(facts, name): bool(_misnamed(facts, name)),
        "are turned or mirrored as their EXIF orientation says": facts.orientation != 1,
        "have EXIF data that cannot be read: how they must be turned is not known": not facts.orientation_known,
        "are white-is-zero TIFFs and are inverted, so that high values are white": facts.white_is_zero,
        "hold other pictures beside the first (previews), which are left out": facts.previews > 0,
        f"have {facts.bits} bits and are scaled to 8 by each image's own percentiles": facts.bits > 8,
        f"have only {facts.bits} bits": facts.bits < 8 and facts.mode != "P",
        f"are {facts.mode} and are converted to grey": facts.mode in ("CMYK", "YCbCr", "LAB", "HSV"),
    }
    return [text for text, applies in notes.items() if applies]


def _misnamed(facts: FileFacts, name: str) -> str:
    suffix = PurePath(name).suffix.lower()
    return f"hold {facts.format} under the name {suffix}" if _FORMATS.get(suffix, facts.format) != facts.format else ""


def _notes_of_8_bits(image: Image.Image) -> list[str]:
    notes = []
    if image.has_transparency_data:
        low, high = image.convert("RGBA").getchannel("A").getextrema()
        _refuse_see_through(low != high)
        notes.append("have an alpha channel, the same everywhere, which is left out")
    if image.mode not in ("L", "1", "LA"):
        channels = np.asarray(image.convert("RGB")).astype(np.int16)
        notes += _note_coloured(channels, COLOUR_STEP)
    return notes


def _refuse_see_through(differs: bool) -> None:
    if differs:
        raise ImageError(
            "its alpha channel hides some pixels: their grey value is undefined",
            "save it without an alpha channel, on the background that it is meant to have",
        )


def _note_coloured(channels: NDArray[Any], step: float) -> list[str]:
    differ = (np.abs(channels - channels[..., :1]) > step).any()
    return ["are coloured: false colours? They are read as grey"] if differ else []


def _note_constant(pixels: Pixels) -> list[str]:
    return ["are of one grey value only"] if pixels.size and pixels.min() == pixels.max() else []


def _grey_palette_misleads(image: Image.Image, index: Pixels) -> bool:
    """Whether every colour that is used is a grey and one is not its index: a tool may have renumbered grey values."""
    palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    used = np.unique(index)
    used = used[used < len(palette)]
    colours = palette[used]
    return bool((colours == colours[:, :1]).all() and (colours[:, 0] != used).any())


# -- deep images ---------------------------------------------------------------------------------------------------------


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels as EXIF's orientation says that they are to be seen; as PIL.ImageOps.exif_transpose does it."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.T
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _deep(data: bytes, image: Image.Image | None, facts: FileFacts) -> tuple[Pixels, list[str]]:
    """(grey values, notes) of an image of more than 8 bits, or of one that only OpenCV can read."""
    if image is not None and facts.format == "PNG" and image.mode == "I;16":
        pixels: Array | None = np.asarray(image)
    else:
        pixels = _read_by_opencv(data)
    if pixels is None:
        raise ImageError("not an image that can be read")
    if pixels.dtype == np.uint8 and facts.bits > 8:
        raise ImageError(f"{facts.bits} bits, of which 8 would be left", "save it as a grey PNG or TIFF of 16 bits")
    grey, notes = _to_grey(pixels, facts.white_is_zero)
    return (grey if facts.format == "TIFF" else _turned(grey, facts.orientation)), notes  # OpenCV turns a TIFF itself


def _read_by_opencv(data: bytes) -> Array | None:
    import cv2  # only deep frames need it

    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f"not an image that can be read: {error.err}") from error


def _read_array(data: bytes, name: str) -> ImageFile:
    file = io.BytesIO(data)
    try:
        values = np.load(file, allow_pickle=False)
    except (EOFError, MemoryError) as error:
        raise ImageError(f"not an array that can be read: {error}") from error
    except ValueError as error:
        raise ImageError(str(error)) from error
    if file.read(1):
        raise ImageError("there is more in the file after its first array", "save one array in a file")
    grey, notes = _to_grey(values)
    facts = FileFacts("NPY", bits=8 * values.dtype.itemsize)
    return ImageFile(grey, facts, (*_notes(facts, name), *notes))


def _to_grey(pixels: Array, negative: bool = False) -> tuple[Pixels, list[str]]:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    real = np.issubdtype(pixels.dtype, np.integer) or np.issubdtype(pixels.dtype, np.floating)
    if pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or pixels.size == 0 or not real:
        raise ImageError(f"an array of shape {pixels.shape} and type {pixels.dtype} is no image")
    values, notes = pixels.astype(np.float64), []
    if not np.isfinite(values).all():
        raise ImageError("it holds values that are not finite")
    if channels == 4:
        _refuse_see_through(bool((values[..., 3] != values[0, 0, 3]).any()))
        notes.append("have an alpha channel, the same everywhere, which is left out")
    if channels > 1:
        notes += _note_coloured(values[..., :3], COLOUR_STEP if pixels.dtype == np.uint8 else 0)
    values = values[..., :3].mean(-1) if pixels.ndim == 3 else values
    if pixels.dtype == np.uint8:
        grey = np.asarray(values.round(), dtype=np.uint8)
        return grey, [*notes, *_note_constant(grey)]
    values = -values if negative else values
    low, high = np.percentile(values, CLIP_PERCENT)
    grey = np.asarray(np.clip((values - low) / max(high - low, 1e-12), 0, 1) * 255).round().astype(np.uint8)
    return grey, [*notes, *_note_constant(grey)]
