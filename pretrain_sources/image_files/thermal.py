"""Decoding thermal images of any depth to grey values."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pretrain_sources.image_files.header import (
    OF_ANY_FILE,
    FileFacts,
    ImageError,
    ImageFile,
    Pixels,
    Rule,
    misnamed,
    opened,
    refuse,
)

Array = NDArray[np.generic]
CLIP_PERCENT = (0.5, 99.5)  # of a frame deeper than 8 bits: these percentiles become 0 and 255
COLOUR_STEP = 3  # channels of a grey JPEG differ by so much through rounding
_NPY = b"\x93NUMPY"

_OF_IMAGES: tuple[Rule, ...] = (
    *OF_ANY_FILE,
    (
        lambda f: f.planes and f.bits > 8,
        "channels of {f.bits} bits in separate planes",
        "save it with interleaved channels",
    ),
)


def decode_thermal(data: bytes) -> Pixels:
    """(H, W) grey values of an encoded image or .npy array of any depth: the pixels of `read_image`."""
    return read_image(data).pixels


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
    with opened(data) as (image, facts):
        refuse(facts, _OF_IMAGES)
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


# -- what was converted or left out -------------------------------------------------------------------------------------


def _notes(facts: FileFacts, name: str) -> list[str]:
    """What the header alone says, of images."""
    notes = {
        misnamed(facts, name): bool(misnamed(facts, name)),
        "are turned or mirrored as their EXIF orientation says": facts.orientation != 1,
        "have EXIF data that cannot be read: how they must be turned is not known": not facts.orientation_known,
        "are white-is-zero TIFFs and are inverted, so that high values are white": facts.white_is_zero,
        "hold other pictures beside the first (previews), which are left out": facts.previews > 0,
        f"have {facts.bits} bits and are scaled to 8 by each image's own percentiles": facts.bits > 8,
        f"have only {facts.bits} bits": facts.bits < 8 and facts.mode != "P",
        f"are {facts.mode} and are converted to grey": facts.mode in ("CMYK", "YCbCr", "LAB", "HSV"),
    }
    return [text for text, applies in notes.items() if applies]


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


# -- images of more than 8 bits -----------------------------------------------------------------------------------------


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
