"""How a data set codes grey values and labels, where a file's own 8 bits are not simply those."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.image_files.header import ImageError, Pixels

MOST_NAMED = 5  # unknown values in a message


@dataclass(frozen=True)
class ImageCoding:
    """Grey values of an image.

    Attributes:
        channel: the one to use of several, counted from 0; None: colours become grey.
        limits: the values that become 0 and 255; None: percentiles, or an image of 8 bits as it is.
        clip: whether values beyond the limits are clipped; otherwise they are an error.
        percentiles: of each image, which become 0 and 255.
    """

    channel: int | None = None
    limits: tuple[float, float] | None = None
    clip: bool = False
    percentiles: tuple[float, float] | None = None

    def scaled(self, values: NDArray[np.float64]) -> Pixels:
        """Scale values (H, W) to 0..255.

        Raises:
            ImageError: a value is beyond the limits.
        """
        if self.limits is not None:
            low, high = self.limits
            least, most = float(values.min()), float(values.max())
            if not self.clip and (least < low or most > high):
                raise ImageError(
                    f"its values are {least:g} to {most:g}, beyond the range {low:g} to {high:g}",
                    "widen `range` in the target's card, or set `clip: true`",
                )
        else:
            low, high = np.percentile(values, self.percentiles or (0, 100))
        unit = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
        return np.asarray((unit * 255).round(), dtype=np.uint8)


@dataclass(frozen=True)
class LabelCoding:
    """Labels of a mask.

    Attributes:
        values: value in the file -> class, or 255 for ignored pixels. colours: the same for 0xRRGGBB.
    """

    values: Mapping[int, int] = field(default_factory=dict)
    colours: Mapping[int, int] = field(default_factory=dict)

    def labels(self, stored: NDArray[np.integer]) -> Pixels:
        """Return the labels (H, W) of values (H, W), or of colours (H, W, 3).

        Raises:
            ImageError: a value or colour has no class.
        """
        known = self.colours or self.values
        if self.colours:
            wide = stored.astype(np.int64)
            stored = (wide[..., 0] << 16) + (wide[..., 1] << 8) + wide[..., 2]
        found, where, counts = np.unique(stored, return_inverse=True, return_counts=True)
        if unknown := [(int(v), int(n)) for v, n in zip(found, counts, strict=True) if int(v) not in known]:
            name, key = ("colour #{:06x}", "colours") if self.colours else ("label {}", "values")
            shown = ", ".join(f"{name.format(v)} on {n} px" for v, n in unknown[:MOST_NAMED])
            more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
            raise ImageError(f"{shown}{more}: no class", f"add it to `{key}` or `ignore` in the target's card")
        table = np.array([known[int(v)] for v in found], dtype=np.uint8)
        return np.asarray(table[where.reshape(stored.shape)])
