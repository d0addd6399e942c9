"""Pretraining without masks, as data: SimMIM, masked image modelling (Xie et al., arXiv 2111.09886). Data without code of torch.

Squares of a crop are hidden, and the encoder learns to reconstruct their pixels from what is left.
"""

import math

from pydantic import BaseModel, ConfigDict, Field

from pretrain_sources.config_file import Number, Whole


class SimMIM(BaseModel):
    """What is hidden of a crop. The defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    patch_px: Whole = Field(default=32, ge=1, le=4096, description="side of the squares that are masked, in pixels")
    mask_ratio: Number = Field(default=0.6, gt=0, lt=1, description="share of the squares that is masked, rounded up")

    def grid(self, crop_px: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of squares in a crop (height, width); those at its lower and right edge may be cut."""
        return -(-crop_px[0] // self.patch_px), -(-crop_px[1] // self.patch_px)

    def masked(self, crop_px: tuple[int, int]) -> int:
        """Return how many squares of a crop are masked."""
        rows, columns = self.grid(crop_px)
        return math.ceil(round(self.mask_ratio * rows * columns, 6))  # 0.55 of 140 are 77, not 77.00000000000001
