"""Decoding label maps to class indices, and holding one against its image."""

import numpy as np
from PIL import Image

from pretrain_sources.image_files.header import (
    IGNORE,
    OF_ANY_FILE,
    ImageError,
    ImageFile,
    Pixels,
    Rule,
    misnamed,
    opened,
    refuse,
)

MASK_MEND = "masks must be index or palette PNGs of 8 bits"

_OF_MASKS: tuple[Rule, ...] = (
    (lambda f: not f.lossless, "{f.format}, whose compression can change labels", f"{MASK_MEND}; export them again"),
    *OF_ANY_FILE,
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


class SizeMismatchError(ValueError):
    """A label map and its image are of two sizes; the message gives both."""


class UnknownLabelError(ValueError):
    """A label map holds values that no class has; the message gives them, with their pixels."""


def decode_label(data: bytes) -> Pixels:
    """(H, W) class indices of an index PNG or a palette PNG: the pixels of `read_label`."""
    return read_label(data).pixels


def read_label(data: bytes, name: str = "") -> ImageFile:
    """An index PNG or a palette PNG as class indices; of a palette the index is the label.

    Raises:
        ImageError: it cannot be decoded, is not one 8-bit channel, or is refused: `_OF_MASKS`.
    """
    if not data:
        raise ImageError("the file is empty")
    with opened(data) as (image, facts):
        if image is None:
            raise ImageError("not an image that can be read", MASK_MEND)
        refuse(facts, _OF_MASKS)
        pixels = np.asarray(image)
        notes = [misnamed(facts, name)] if misnamed(facts, name) else []
        if image.has_transparency_data:
            notes.append("have transparent pixels or colours, which are labels like others")
        if image.mode == "P" and _grey_palette_misleads(image, pixels):
            notes.append("have a palette of greys that are not their indices; the index is the label")
        return ImageFile(pixels, facts, tuple(notes))


def class_pixels(label: ImageFile, image: ImageFile, num_classes: int) -> tuple[int, ...]:
    """How many pixels of a label map each class has, ignore last, where the map fits its image.

    Raises:
        SizeMismatchError: they are of two sizes. UnknownLabelError: a label is neither a class nor ignore.
    """
    (height, width), found = image.pixels.shape, label.pixels.shape
    if found != (height, width):
        raise SizeMismatchError(f"{found[1]}x{found[0]}, its image {width}x{height}")
    counts = np.bincount(label.pixels.ravel(), minlength=256)
    if strange := [int(value) for value in np.flatnonzero(counts[:IGNORE]) if value >= num_classes]:
        shown = ", ".join(f"{value} on {counts[value]} px" for value in strange[:5])
        raise UnknownLabelError(f"label {shown}{f' and {len(strange) - 5} more' if len(strange) > 5 else ''}")
    return (*counts[:num_classes].tolist(), int(counts[IGNORE]))


def _grey_palette_misleads(image: Image.Image, index: Pixels) -> bool:
    """Whether every colour that is used is a grey and one is not its index: a tool may have renumbered grey values."""
    palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    used = np.unique(index)
    used = used[used < len(palette)]
    colours = palette[used]
    return bool((colours == colours[:, :1]).all() and (colours[:, 0] != used).any())
