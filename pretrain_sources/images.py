"""Decoding thermal images of any depth, and label maps."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Pixels = NDArray[np.uint8]
IGNORE = 255  # label of pixels that no loss and no score looks at
CLIP_PERCENT = (0.5, 99.5)  # of a frame deeper than 8 bits: these percentiles become 0 and 255
_PNG_BIT_DEPTH = 24  # offset of that byte in the file


def decode_thermal(data: bytes) -> Pixels:
    """(H, W) grey values of an encoded image or .npy array of any depth.

    8 bits stay as they are (colours become grey). Deeper frames, 16 bits or float, are clipped to the frame's own 0.5 and 99.5
    percentiles and scaled to 0..255; three channels are averaged first.

    Raises:
        ValueError: it cannot be decoded, or holds values that are not finite.
    """
    if not data:
        raise ValueError("the file is empty")
    if data[:6] == b"\x93NUMPY":
        try:
            return _to_grey(np.load(io.BytesIO(data), allow_pickle=False))
        except (EOFError, MemoryError) as error:
            raise ValueError(f"not an array that can be read: {error}") from error
    deep_png = data[:4] == b"\x89PNG" and len(data) > _PNG_BIT_DEPTH and data[_PNG_BIT_DEPTH] == 16
    if not deep_png:
        try:
            with Image.open(io.BytesIO(data)) as image:
                if not image.mode.startswith(("I", "F")):
                    return np.asarray(image.convert("L"))
        except UnidentifiedImageError:
            pass  # some deep TIFFs: OpenCV reads them
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(" ".join(str(error).split())) from error
    import cv2  # only deep frames need it

    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"not an image that can be read: {error.err}") from error
    if pixels is None:
        raise ValueError("not an image that can be read")
    return _to_grey(pixels)


def decode_label(data: bytes) -> Pixels:
    """(H, W) class indices of an index PNG or a palette PNG.

    Raises:
        OSError: it cannot be decoded. ValueError: it is not one 8-bit channel.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in ("L", "P"):
            raise ValueError(f"mask of mode {image.mode}, not one 8-bit channel")
        if image.mode == "L" and image.format == "PNG" and data[_PNG_BIT_DEPTH] != 8:
            raise ValueError(f"grey PNG of {data[_PNG_BIT_DEPTH]} bits: reading it would scale the labels")
        return np.asarray(image)


def _to_grey(pixels: NDArray[np.generic]) -> Pixels:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    real = np.issubdtype(pixels.dtype, np.integer) or np.issubdtype(pixels.dtype, np.floating)
    if pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or pixels.size == 0 or not real:
        raise ValueError(f"an array of shape {pixels.shape} and type {pixels.dtype} is no image")
    values = pixels.astype(np.float64)
    values = values[..., :3].mean(-1) if pixels.ndim == 3 else values  # alpha is left out
    if pixels.dtype == np.uint8:
        return np.asarray(values.round(), dtype=np.uint8)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    low, high = np.percentile(values, CLIP_PERCENT)
    return np.asarray(np.clip((values - low) / max(high - low, 1e-12), 0, 1) * 255).round().astype(np.uint8)
