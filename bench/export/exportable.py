"""Operations that torch.export can follow for images of any size. Their results are those of the originals, up to rounding.

- Adaptive average pooling: torch takes it apart for the size of the example, which is wrong for others. Here it is a product with
  one matrix for the rows and one for the columns, made from the size.
- TensorFlow's 'same' padding in timm: its division makes formulas of the sides that torch would simplify for hours. Here it is in
  whole numbers.
"""

import contextlib
from collections.abc import Iterator

import timm.layers.padding
import torch
import torch.nn.functional as F
from torch import Tensor

Pooled = int | tuple[int | None, int | None]
_adaptive_avg_pool2d = F.adaptive_avg_pool2d


@contextlib.contextmanager
def operations() -> Iterator[None]:
    """Use these operations wherever a network calls the originals."""
    padding = timm.layers.padding.get_same_padding
    F.adaptive_avg_pool2d, timm.layers.padding.get_same_padding = average_pool, same_padding  # type: ignore[assignment]
    try:
        yield
    finally:
        F.adaptive_avg_pool2d, timm.layers.padding.get_same_padding = _adaptive_avg_pool2d, padding


def average_pool(input: Tensor, output_size: Pooled) -> Tensor:
    """Pool (B, C, H, W) to (B, C, *output_size), as F.adaptive_avg_pool2d; None keeps a side."""
    height, width = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    if height == width == 1:
        return _adaptive_avg_pool2d(input, 1)
    rows = input if height is None else _pooling(input.shape[-2], height, input) @ input
    return rows if width is None else rows @ _pooling(input.shape[-1], width, input).T


def _pooling(side: int, wanted: int, like: Tensor) -> Tensor:
    """Return the (wanted, side) matrix of an adaptive average along one axis."""
    cells, places = torch.arange(wanted, device=like.device)[:, None], torch.arange(side, device=like.device)[None]
    begin, end = cells * side // wanted, ((cells + 1) * side + wanted - 1) // wanted
    inside = ((places >= begin) & (places < end)).to(like.dtype)
    return inside / (end - begin).to(like.dtype)


def same_padding(x: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Return the padding of a side, as timm.layers.padding.get_same_padding does."""
    steps = (x + stride - 1) // stride
    return max((steps - 1) * stride + (kernel_size - 1) * dilation + 1 - x, 0)
