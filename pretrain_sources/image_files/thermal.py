"""Decoding thermal images of any bit depth to grey values."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pretrain_sources.image_files.coding import ImageCoding
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
COLOUR_STEP = 3  # maximal difference between channels of a grey JPEG, through rounding
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
    """Decode an image or .npy array of any bit depth to grey values (H, W), see `read_image`."""
    return read_image(data).pixels


def read_image(data: bytes, name: str = "", side: int | None = None, coding: ImageCoding | None = None) -> ImageFile:
    """Read an image or .npy array of any bit depth as grey values.

    8-bit images keep their values (colours become grey). Deeper images, 16 bits or float, are clipped to their own 0.5 and 99.5
    percentiles and scaled to 0..255; three channels are averaged first. EXIF orientation and white-is-zero are applied.

    name: file name, to check its suffix. side: allow a JPEG to be reduced to sides of at least so many pixels. coding: of this
    data set, in place of these rules.

    Raises:
        ImageError: it cannot be decoded, has values that are not finite, or is refused by `_OF_IMAGES`.
    """
    if not data:
        raise ImageError("the file is empty")
    if data[:6] == _NPY:
        return _read_array(data, name, coding)
    with opened(data) as (image, facts):
        one_of_many = coding is not None and coding.channel is not None
        refuse(replace(facts, spare_channels=0) if one_of_many else facts, _OF_IMAGES)
        notes = _notes(facts, name)
        if coding is not None:
            return _coded(data, image, facts, coding, name)
        if image is None or facts.bits > 8:
            pixels, more = _deep(data, image, facts)
            return ImageFile(pixels, facts, (*notes, *more))
        if side is not None and facts.format == "JPEG":
            image.draft("L", (side, side))  # decodes at a reduced size
        notes += _notes_of_8_bits(image)
        grey = np.asarray(image.convert("L"))
        pixels = grey if facts.format == "TIFF" else _turned(grey, facts.orientation)  # Pillow rotates a TIFF itself
        return ImageFile(pixels, facts, (*notes, *_note_constant(pixels)))


# -- what was converted or left out -------------------------------------------------------------------------------------


def _notes(facts: FileFacts, name: str) -> list[str]:
    """Return notes from the header of an image."""
    notes = {
        misnamed(facts, name): bool(misnamed(facts, name)),
        "are rotated or mirrored by their EXIF orientation": facts.orientation != 1,
        "have unreadable EXIF data: their orientation is unknown": not facts.orientation_known,
        "are white-is-zero TIFFs and are inverted, so that high values are white": facts.white_is_zero,
        "have further pictures (previews), which are ignored": facts.previews > 0,
        f"have {facts.bits} bits and are scaled to 8 by each image's own percentiles": facts.bits > 8,
        f"have only {facts.bits} bits": facts.bits < 8 and facts.mode != "P",
        f"are {facts.mode} and are converted to grey": facts.mode in ("CMYK", "YCbCr", "LAB", "HSV"),
    }
    return [text for text, applies in notes.items() if applies]


def _notes_of_8_bits(image: Image.Image) -> list[str]:
    notes = []
    if image.has_transparency_data:
        low, high = image.convert("RGBA").getchannel("A").getextrema()
        _refuse_transparency(low != high)
        notes.append("have a constant alpha channel, which is ignored")
    if image.mode not in ("L", "1", "LA"):
        channels = np.asarray(image.convert("RGB")).astype(np.int16)
        notes += _note_coloured(channels, COLOUR_STEP)
    return notes


def _refuse_transparency(varies: bool) -> None:
    if varies:
        raise ImageError(
            "its alpha channel hides some pixels, whose grey value is undefined",
            "save it without an alpha channel, on the intended background",
        )


def _note_coloured(channels: NDArray[Any], step: float) -> list[str]:
    differ = (np.abs(channels - channels[..., :1]) > step).any()
    return ["are coloured (false colours?) and are converted to grey"] if differ else []


def _note_constant(pixels: Pixels) -> list[str]:
    return ["have a single grey value"] if pixels.size and pixels.min() == pixels.max() else []


# -- images in the coding of their data set -----------------------------------------------------------------------------


def _coded(data: bytes, image: Image.Image | None, facts: FileFacts, coding: ImageCoding, name: str) -> ImageFile:
    if image is None or facts.bits > 8:
        values = _deep_values(data, image, facts)
        values = values[..., [2, 1, 0, *range(3, values.shape[2])]] if values.ndim == 3 else values  # OpenCV has BGR
    else:
        values = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    turned = 1 if facts.format == "TIFF" else facts.orientation  # both libraries rotate a TIFF themselves
    pixels = _turned(_grey_of(values, coding, facts.white_is_zero and facts.bits > 8), turned)
    scaling = "are scaled to 8 by each image's own percentiles"
    notes = [note for note in _notes(facts, name) if scaling not in note]
    return ImageFile(pixels, facts, (*notes, *_note_constant(pixels)))


def _grey_of(values: Array, coding: ImageCoding, negative: bool = False) -> Pixels:
    """Return the grey values (H, W) of an array (H, W) or (H, W, C)."""
    count = values.shape[2] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or values.size == 0:
        raise ImageError(f"an array of shape {values.shape} is not an image")
    if coding.channel is not None and coding.channel >= count:
        raise ImageError(
            f"it has {count} channel{'s' * (count > 1)}, so there is no channel {coding.channel}",
            "correct `channel` in the target's card, which counts from 0",
        )
    if coding.channel is not None:
        values = values[..., coding.channel] if values.ndim == 3 else values
    elif count > 1:
        raise ImageError(f"it has {count} channels", "set `channel` in the target's card")
    if values.dtype == np.uint8 and coding.limits is None and coding.percentiles is None:
        return np.ascontiguousarray(values)
    if coding.limits is None and coding.percentiles is None:
        raise ImageError(
            f"values of type {values.dtype}, deeper than 8 bits", "set `range` or `percentiles` in the target's card"
        )
    real = values.astype(np.float64)
    if not np.isfinite(real).all():
        raise ImageError("it has values that are not finite")
    return coding.scaled(-real if negative else real)


# -- images of more than 8 bits -----------------------------------------------------------------------------------------


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation, as PIL.ImageOps.exif_transpose does."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.T
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _deep(data: bytes, image: Image.Image | None, facts: FileFacts) -> tuple[Pixels, list[str]]:
    """Return (grey values, notes) of an image of more than 8 bits, or of one that only OpenCV can read."""
    grey, notes = _to_grey(_deep_values(data, image, facts), facts.white_is_zero)
    return (grey if facts.format == "TIFF" else _turned(grey, facts.orientation)), notes  # OpenCV rotates a TIFF itself


def _deep_values(data: bytes, image: Image.Image | None, facts: FileFacts) -> Array:
    if image is not None and facts.format == "PNG" and image.mode == "I;16":
        pixels: Array | None = np.asarray(image)
    else:
        pixels = _read_by_opencv(data)
    if pixels is None:
        raise ImageError("not a readable image")
    if pixels.dtype == np.uint8 and facts.bits > 8:
        raise ImageError(f"{facts.bits} bits, of which only 8 would be read", "save it as a 16-bit grey PNG or TIFF")
    return pixels


def _read_by_opencv(data: bytes) -> Array | None:
    import cv2  # only deep frames need it

    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f"not a readable image: {error.err}") from error


def _read_array(data: bytes, name: str, coding: ImageCoding | None) -> ImageFile:
    file = io.BytesIO(data)
    try:
        values = np.load(file, allow_pickle=False)
    except (EOFError, MemoryError) as error:
        raise ImageError(f"not a readable array: {error}") from error
    except ValueError as error:
        raise ImageError(str(error)) from error
    if file.read(1):
        raise ImageError("the file has data after its first array", "save one array per file")
    facts = FileFacts("NPY", bits=8 * values.dtype.itemsize)
    if coding is not None:
        return ImageFile(_grey_of(values, coding), facts)
    grey, notes = _to_grey(values)
    return ImageFile(grey, facts, (*_notes(facts, name), *notes))


def _to_grey(pixels: Array, negative: bool = False) -> tuple[Pixels, list[str]]:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    real = np.issubdtype(pixels.dtype, np.integer) or np.issubdtype(pixels.dtype, np.floating)
    if pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or pixels.size == 0 or not real:
        raise ImageError(f"an array of shape {pixels.shape} and type {pixels.dtype} is not an image")
    values, notes = pixels.astype(np.float64), []
    if not np.isfinite(values).all():
        raise ImageError("it has values that are not finite")
    if channels == 4:
        _refuse_transparency(bool((values[..., 3] != values[0, 0, 3]).any()))
        notes.append("have a constant alpha channel, which is ignored")
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
