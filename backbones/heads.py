"""Heads on an encoder's feature maps, beside a backbone's own decoder: the linear probe, the auxiliary head of a training, and the
head that reconstructs pixels in a pretraining."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = 4  # the last feature maps, from fine to coarse
AUXILIARY_WIDTH = 256  # and one convolution, dropout 0.1: mmsegmentation's FCNHead as UNIP and PAD set it


def last_stages(features: Sequence[Tensor]) -> list[Tensor]:
    """Return the last four feature maps (B, C, h, w); prefix tokens and empty maps do not count."""
    return [feature for feature in features if feature.ndim == 4 and feature.numel()][-STAGES:]


class LinearHead(nn.Module):
    """A 1 x 1 convolution on the last four feature maps, resized to the finest of them and concatenated.

    It is computed map by map, which is the same function: a 1 x 1 convolution and bilinear resizing commute.
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(width, num_classes, 1, bias=i == 0) for i, width in enumerate(channels))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w) at the size of the finest map."""
        logits: Tensor | None = None
        for part, feature in zip(self.parts, last_stages(features), strict=True):
            each: Tensor = part(feature)
            if logits is None:
                logits = each
            else:
                logits = logits + F.interpolate(each, size=logits.shape[-2:], mode="bilinear", align_corners=False)
        assert logits is not None
        return logits


class AuxiliaryHead(nn.Module):
    """Logits from the last feature map but one, for a second loss while training."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels[-2:][0], AUXILIARY_WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(AUXILIARY_WIDTH),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(AUXILIARY_WIDTH, num_classes, 1),
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w)."""
        logits: Tensor = self.layers(last_stages(features)[-2:][0])
        return logits


class PixelHead(nn.Module):
    """Grey values from the last feature map, as in SimMIM: a 1 x 1 convolution gives all pixels of a place, one channel each."""

    def __init__(self, channels: int, stride: int) -> None:
        """stride: side in px of the square of an image that belongs to one place of the map."""
        super().__init__()
        self.pixels = nn.Conv2d(channels, stride**2, 1)
        self.shuffle = nn.PixelShuffle(stride)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return grey values (B, 1, h * stride, w * stride) from the last map (B, C, h, w)."""
        values: Tensor = self.shuffle(self.pixels(last_stages(features)[-1]))
        return values


def widths(features: Sequence[Tensor]) -> list[int]:
    """Return the channels of the last four feature maps."""
    return [feature.shape[1] for feature in last_stages(features)]
