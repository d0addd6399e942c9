"""Decoding label maps to class indices, and checking them against their images."""

import numpy as np
from PIL import Image

from pretrain_sources.image_files.coding import LabelCoding
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

MASK_MEND = "masks must be 8-bit index or palette PNGs"

_OF_ANY_MASK: tuple[Rule, ...] = (
    (lambda f: not f.lossless, "{f.format}, whose compression can change labels", f"{MASK_MEND}; export them again"),
    *OF_ANY_FILE,
    (
        lambda f: f.mode == "L" and f.bits != 8,
        "grey {f.format} of {f.bits} bits: reading it would scale the labels",
        MASK_MEND,
    ),
    (lambda f: f.white_is_zero, "a white-is-zero TIFF: reading it would invert the labels", MASK_MEND),
    (
        lambda f: f.orientation != 1,
        "mask with EXIF orientation {f.orientation}: unclear whether it is aligned with its image",
        "if it is aligned as stored: exiftool -Orientation= FILE; otherwise: mogrify -auto-orient FILE",
    ),
)
# what holds the labels: an index of 8 bits; with a coding, an index of up to 16 bits, or colours
_INDEX: Rule = (lambda f: f.mode not in ("L", "P"), "mask of mode {f.mode}, not one 8-bit channel", MASK_MEND)
_VALUES: Rule = (
    lambda f: f.mode not in ("L", "P", "I;16", "I"),
    "mask of mode {f.mode}, which is no index",
    "set `colours` in the target's card for coloured masks",
)
_COLOURS: Rule = (
    lambda f: f.mode not in ("RGB", "RGBA", "P"),
    "mask of mode {f.mode}, which has no colours",
    MASK_MEND,
)


class SizeMismatchError(ValueError):
    """A label map and its image have different sizes; the message gives both."""


class UnknownLabelError(ValueError):
    """A label map has values outside of the classes; the message gives them with their pixel counts."""


def decode_label(data: bytes) -> Pixels:
    """Decode an index PNG or a palette PNG to class indices (H, W)."""
    return read_label(data).pixels


def read_label(data: bytes, name: str = "", coding: LabelCoding | None = None) -> ImageFile:
    """Read an index PNG or a palette PNG, whose indices are the labels; with a `coding`, values or colours that stand for them.

    Raises:
        ImageError: it cannot be decoded, is not one 8-bit channel, or the coding lacks a value.
    """
    if not data:
        raise ImageError("the file is empty")
    with opened(data) as (image, facts):
        if image is None:
            raise ImageError("not a readable image", MASK_MEND)
        notes = [misnamed(facts, name)] if misnamed(facts, name) else []
        if coding is not None:
            refuse(facts, (*_OF_ANY_MASK, _COLOURS if coding.colours else _VALUES))
            stored = np.asarray(image.convert("RGB") if coding.colours else image)
            return ImageFile(coding.labels(stored), facts, tuple(notes))
        refuse(facts, (*_OF_ANY_MASK, _INDEX))
        pixels = np.asarray(image)
        if image.has_transparency_data:
            notes.append("have transparent pixels or colours, which are read as labels like others")
        if image.mode == "P" and _grey_palette_misleads(image, pixels):
            notes.append("have a grey palette that differs from the indices; the index is the label")
        return ImageFile(pixels, facts, tuple(notes))


def class_pixels(label: ImageFile, image: ImageFile, num_classes: int) -> tuple[int, ...]:
    """Count the pixels of each class in a label map, ignore last.

    Raises:
        SizeMismatchError: map and image have different sizes. UnknownLabelError: a label is neither a class nor ignore.
    """
    (height, width), size = image.pixels.shape, label.pixels.shape
    if size != (height, width):
        raise SizeMismatchError(f"{size[1]}x{size[0]}, its image {width}x{height}")
    counts = np.bincount(label.pixels.ravel(), minlength=256)
    if unknown := [int(value) for value in np.flatnonzero(counts[:IGNORE]) if value >= num_classes]:
        shown = ", ".join(f"{value} on {counts[value]} px" for value in unknown[:5])
        raise UnknownLabelError(f"label {shown}{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''}")
    return (*counts[:num_classes].tolist(), int(counts[IGNORE]))


def _grey_palette_misleads(image: Image.Image, index: Pixels) -> bool:
    """Return whether all used colours are greys and one differs from its index: a tool may have renumbered grey values."""
    palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    used = np.unique(index)
    used = used[used < len(palette)]
    colours = palette[used]
    return bool((colours == colours[:, :1]).all() and (colours[:, 0] != used).any())
