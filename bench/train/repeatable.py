"""Bilinear resizing and adaptive average pooling as matrix products, whose gradients are repeatable on a GPU.

torch's CUDA kernels add these gradients up in no fixed order, so two trainings alike would differ. Both operations are linear and
separable: one matrix for the rows, one for the columns. Results differ from torch's by rounding.
"""

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pooled = int | tuple[int | None, int | None]
_interpolate, _adaptive_avg_pool2d = F.interpolate, F.adaptive_avg_pool2d


@contextlib.contextmanager
def operations() -> Iterator[None]:
    """Use these operations for CUDA tensors that need gradients, wherever a network calls torch.nn.functional."""
    F.interpolate, F.adaptive_avg_pool2d = _interpolate_or_bilinear, _pool_or_average  # type: ignore[assignment]
    try:
        yield
    finally:
        F.interpolate, F.adaptive_avg_pool2d = _interpolate, _adaptive_avg_pool2d


def bilinear(images: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Resize (B, C, H, W) to (B, C, *size), as F.interpolate(mode='bilinear')."""
    rows = _resizing(images.shape[2], size[0], align_corners, images.device)
    columns = _resizing(images.shape[3], size[1], align_corners, images.device)
    return _separable(images, rows, columns)


def average_pool(images: Tensor, size: Pooled) -> Tensor:
    """Pool (B, C, H, W) to (B, C, *size), as F.adaptive_avg_pool2d; None keeps a side."""
    given = (size, size) if isinstance(size, int) else size
    rows, columns = (
        _pooling(side, side if wanted is None else wanted, images.device)
        for side, wanted in zip(images.shape[2:], given, strict=True)
    )
    return _separable(images, rows, columns)


def _interpolate_or_bilinear(input: Tensor, size: Any = None, *args: Any, **named: Any) -> Tensor:  # noqa: ANN401
    wanted = _bilinear(input, size, args, named) if _learns_on_gpu(input) else None
    return _interpolate(input, size, *args, **named) if wanted is None else bilinear(input, *wanted)


def _pool_or_average(input: Tensor, output_size: Pooled) -> Tensor:
    return average_pool(input, output_size) if _learns_on_gpu(input) else _adaptive_avg_pool2d(input, output_size)


def _bilinear(
    images: Tensor,
    size: Any,  # noqa: ANN401
    args: tuple[Any, ...],
    named: dict[str, Any],
) -> tuple[tuple[int, int], bool] | None:
    """Return (size, align_corners) of a call of F.interpolate that `bilinear` replaces, else None."""
    given = dict(
        zip(("scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias"), args, strict=False)
    )
    given |= named
    if given.get("mode") != "bilinear" or given.get("antialias") or images.ndim != 4:
        return None
    if size is None:  # a whole factor, for which torch's grid is that of the size
        factor = given.get("scale_factor")
        factors = (factor, factor) if isinstance(factor, int | float) else tuple(factor or ())
        if len(factors) != 2 or any(f != int(f) for f in factors):
            return None
        size = [int(side * f) for side, f in zip(images.shape[2:], factors, strict=True)]
    sides = (size, size) if isinstance(size, int) else tuple(map(int, size))
    return (sides[0], sides[1]), bool(given.get("align_corners"))


def _learns_on_gpu(images: Tensor) -> bool:
    return images.is_cuda and images.requires_grad


def _separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply (B, C, H, W) with (h, H) from the left and (w, W) from the right; in float32, as torch's kernels accumulate."""
    with torch.autocast(images.device.type, enabled=False):
        wide = images.float() @ columns.T
        return (rows @ wide).to(images.dtype)


@lru_cache(maxsize=256)
def _resizing(side: int, wanted: int, align_corners: bool, device: torch.device) -> Tensor:
    """Return the (wanted, side) matrix of a linear interpolation along one axis: the identity, resized."""
    with torch.inference_mode(False), torch.no_grad():
        identity = torch.eye(side)[None, None]
        return _interpolate(identity, (wanted, side), mode="bilinear", align_corners=align_corners)[0, 0].to(device)


@lru_cache(maxsize=256)
def _pooling(side: int, wanted: int, device: torch.device) -> Tensor:
    """Return the (wanted, side) matrix of an adaptive average along one axis."""
    matrix = torch.zeros(wanted, side)
    for i in range(wanted):
        begin, end = i * side // wanted, -(-(i + 1) * side // wanted)
        matrix[i, begin:end] = 1 / (end - begin)
    return matrix.to(device)
