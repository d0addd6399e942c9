"""Learned position embeddings of plain ViTs: one row for each patch of one image size, resampled to others."""

import math
from dataclasses import dataclass

from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn


@dataclass(frozen=True)
class Positions:
    """The position embeddings of an encoder: a tensor (1, prefix + height x width, channels)."""

    name: str
    grid: tuple[int, int]  # patches: height, width
    prefix: int  # rows of the class token and the like, which come first
    channels: int
    dynamic: bool  # whether the encoder resamples them to each image


def positions_of(encoder: nn.Module) -> Positions | None:
    """Return the position embeddings of one of timm's plain ViTs behind `model.`, or None for other encoders."""
    model = getattr(encoder, "model", None)
    tensor = getattr(model, "pos_embed", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if not isinstance(tensor, Tensor) or tensor.ndim != 3 or grid is None:
        return None
    height, width = grid
    prefix = tensor.shape[1] - height * width
    dynamic = bool(getattr(model, "dynamic_img_size", False))
    return Positions("model.pos_embed", (height, width), prefix, tensor.shape[2], dynamic)


def fit_positions(tensors: dict[str, Tensor], positions: Positions | None, notes: list[str]) -> dict[str, Tensor]:
    """Resample the position embeddings among an encoder's tensors to its own grid; append notes on what was and will be done.

    Those of another shape than a square grid with the encoder's prefix and channels stay as they are, to be refused.
    """
    if positions is None or (given := tensors.get(positions.name)) is None:
        return tensors
    side = _side(given, positions)
    if side is not None and (side, side) != positions.grid:
        given = resample_abs_pos_embed(given, positions.grid, (side, side), positions.prefix)
        notes.append(f"position embeddings resampled from {_size((side, side))} to {_size(positions.grid)}")
    if positions.dynamic:
        notes.append(f"position embeddings of {_size(positions.grid)} are resampled to each image")
    return tensors | {positions.name: given}


def _side(given: Tensor, positions: Positions) -> int | None:
    """Return the side of the square grid of position embeddings; None if there is none."""
    if given.ndim != 3 or len(given) != 1 or given.shape[2] != positions.channels or not given.is_floating_point():
        return None
    patches = given.shape[1] - positions.prefix
    side = math.isqrt(max(patches, 0))
    return side if side and side * side == patches else None


def _size(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]}"
