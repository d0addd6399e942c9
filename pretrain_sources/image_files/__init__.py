"""Decoding thermal images of any depth, and label maps: their pixels, and what the file is that they come from.

Nothing is dropped or converted in silence. What can change a label or a grey value unnoticed is refused, with what to do about it.
The rest is noted: `bench data check` and `bench corpus check` report the notes. Not seen: damage inside the compressed data of a
JPEG, which its decoder fills in without an error.
"""

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
    "ImageError",
    "ImageFile",
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
