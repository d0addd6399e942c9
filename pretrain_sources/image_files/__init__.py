"""Decoding thermal images of any bit depth, and label maps.

Nothing is dropped or converted silently. Files whose labels or grey values could change unnoticed are refused with a fix; other
conversions are noted, and reported by `bench data check` and `bench corpus check`. Not detected: damage inside the compressed data
of a JPEG, which its decoder fills in without an error.
"""

from pretrain_sources.image_files.coding import ImageCoding, LabelCoding
from pretrain_sources.image_files.header import IGNORE, FileFacts, ImageError, ImageFile, Pixels, counted
from pretrain_sources.image_files.label_maps import (
    MASK_MEND,
    SizeMismatchError,
    UnknownLabelError,
    class_pixels,
    decode_label,
    read_label,
)
from pretrain_sources.image_files.thermal import decode_thermal, read_image

__all__ = [
    "IGNORE",
    "MASK_MEND",
    "FileFacts",
    "ImageCoding",
    "ImageError",
    "ImageFile",
    "LabelCoding",
    "Pixels",
    "SizeMismatchError",
    "UnknownLabelError",
    "class_pixels",
    "counted",
    "decode_label",
    "decode_thermal",
    "read_image",
    "read_label",
]
