"""Plain ViTs of timm, whose features have one scale, under UPerNet and FPN.

The encoder is timm's model up to its last block. The decoder makes four scales out of its maps, so only the ViT is transferred:

- `upernet`: maps after four blocks, BEiT's neck, and UPerNet as in mmsegmentation with the ViT's width (Bao et al. 2022; PAD and
  UNIP compare ViTs with it), but with no auxiliary head;
- `fpn`: the last block's map alone, ViTDet's simple feature pyramid (Li et al. 2022, arXiv 2203.16527), and the FPN of
  segmentation-models-pytorch at half of its default widths.
"""

from collections.abc import Sequence
from typing import Any

import timm
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from transformers import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetHead

from backbones.spec import BackboneSpec
from backbones.timm_decoders import any_size, patch_px

_FACTORS = (4, 2, 1, 0.5)  # sizes of the decoder's scales, as multiples of the grid of patches
_OF_SMALL_PATCHES = (2, 1, 0.5, 0.25)  # with patches of 8 px, so that the finest scale is 1/4 of the image there, too
_POOLS, _DROPOUT = (1, 2, 3, 6), 0.1  # mmsegmentation's UPerHead
_PYRAMID, _SEGMENTATION = 128, 64  # FPN's widths


class _Encoder(nn.Module):
    """A ViT up to its last block. Returns the maps (B, C, h, w) after the blocks `taps`, without prefix tokens."""

    model: Any  # timm's; an nn.Module does not say what it can do

    def __init__(self, model: nn.Module, taps: Sequence[int], stride: int) -> None:
        super().__init__()
        self.model = model
        self.taps = list(taps)
        self.stride = stride

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model.forward_intermediates(images, indices=self.taps, intermediates_only=True)
        return maps


class _UPerNet(nn.Module):
    def __init__(self, channels: int, factors: Sequence[float], num_classes: int) -> None:
        super().__init__()
        self.neck = nn.ModuleList(_rescaling(channels, factor, nn.BatchNorm2d)[0] for factor in factors)
        config = UperNetConfig(hidden_size=channels, pool_scales=_POOLS, num_labels=num_classes)
        self.head = UperNetHead(config, [channels] * len(factors))
        self.head.classifier = nn.Sequential(nn.Dropout2d(_DROPOUT), self.head.classifier)  # the library leaves it out

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        scales = [rescale(feature) for rescale, feature in zip(self.neck, features, strict=True)]
        logits: Tensor = self.head(scales)
        return logits


class _SimpleFPN(nn.Module):
    def __init__(self, channels: int, factors: Sequence[float], num_classes: int) -> None:
        super().__init__()
        self.pyramid = nn.ModuleList(_simple_scale(channels, factor) for factor in factors)
        self.decoder = FPNDecoder(
            [_PYRAMID] * len(factors), pyramid_channels=_PYRAMID, segmentation_channels=_SEGMENTATION
        )
        self.head = SegmentationHead(_SEGMENTATION, num_classes, kernel_size=1)
        initialize_decoder(self.decoder)
        initialize_head(self.head)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.head(self.decoder([scale(features[-1]) for scale in self.pyramid]))
        return logits


def taps_of(depth: int) -> tuple[int, ...]:
    """Return the blocks, counted from 0, whose maps UPerNet gets: those at 1/3, 1/2, 2/3 and the end of the depth.

    1/3 and 1/2 are rounded down, 2/3 up. That is 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24, as in BEiT and PAD.

    Raises:
        ValueError: there are fewer than four blocks.
    """
    if depth < 4:
        raise ValueError(f"upernet needs four blocks and the encoder has {depth}; use fpn")
    return depth // 3 - 1, depth // 2 - 1, -(-2 * depth // 3) - 1, depth - 1


def build(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Return (encoder, decoder) with random weights. Encoder tensors have timm's names behind `model.`.

    The encoder's `stride` is the side in px of the squares that an image must consist of.

    Raises:
        ValueError: the ViT has too few blocks.
    """
    model = timm.create_model(spec.encoder, num_classes=0, **any_size(spec.encoder))
    depth, channels, patch = len(model.blocks), model.embed_dim, patch_px(spec.encoder)
    assert patch is not None
    taps = taps_of(depth) if spec.decoder == "upernet" else (depth - 1,)
    model.prune_intermediate_layers(list(taps), prune_norm=True, prune_head=True)
    factors = _OF_SMALL_PATCHES if patch <= 8 else _FACTORS
    decoder = {"upernet": _UPerNet, "fpn": _SimpleFPN}[spec.decoder]
    return _Encoder(model, taps, round(patch / min(factors))), decoder(channels, factors, num_classes)


def _rescaling(channels: int, factor: float, norm: type[nn.Module], narrower: int = 1) -> tuple[nn.Sequential, int]:
    """Return (layers, channels) that resize a map by a power of two.

    narrower: what the channels are divided by at each doubling: 1 in BEiT's neck, 2 in ViTDet's pyramid.
    """
    layers: list[nn.Module] = []
    while factor > 1:
        if layers:
            layers += [norm(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // narrower, kernel_size=2, stride=2))
        channels //= narrower
        factor /= 2
    if factor < 1:
        layers.append(nn.MaxPool2d(round(1 / factor)))
    return nn.Sequential(*layers), channels


def _simple_scale(channels: int, factor: float) -> nn.Sequential:
    """Return one scale of ViTDet's simple feature pyramid."""
    rescaling, width = _rescaling(channels, factor, LayerNorm2d, narrower=2)
    return nn.Sequential(
        *rescaling,
        nn.Conv2d(width, _PYRAMID, 1, bias=False),
        LayerNorm2d(_PYRAMID),
        nn.Conv2d(_PYRAMID, _PYRAMID, 3, padding=1, bias=False),
        LayerNorm2d(_PYRAMID),
    )
