"""The network class of all backbones. Channels, normalisation, padding and output size are handled here, in a final forward
pass, so no encoder or decoder can forget them."""

import importlib
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.heads import AuxiliaryHead, LinearHead, PixelHead, last_stages, widths
from backbones.spec import BackboneSpec, Colour

STRIDE = 32  # inputs are padded to a multiple of it: encoders halve five times, and odd sizes fail nearly everywhere


@final
class Network(nn.Module):
    """`.encoder` maps (B, 3, H, W) to a list of feature maps, `.decoder` maps those to logits of any smaller size.

    An encoder with other squares than 32 x 32 px has an attribute `stride`: the side in px. `.auxiliary`: a second head on the same
    features for a training's loss, or None. Only `with_auxiliary` uses it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: BackboneSpec, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.decoder = decoder
        self.auxiliary: nn.Module | None = None
        self.stride: int = getattr(encoder, "stride", STRIDE)
        self.register_buffer("mean", torch.empty(1, 3, 1, 1))
        self.register_buffer("std", torch.empty(1, 3, 1, 1))
        self.set_normalisation(spec.mean, spec.std)

    def set_normalisation(self, mean: Colour, std: Colour) -> None:
        """Set the input normalisation of the encoder's weights, on 0..1."""
        self.mean.copy_(torch.tensor(mean).view(1, 3, 1, 1))
        self.std.copy_(torch.tensor(std).view(1, 3, 1, 1))

    def features(self, images: Tensor, masked: Tensor | None = None) -> Sequence[Tensor]:
        """Return the encoder's feature maps for thermal images (B, 1, H, W) in 0..1, padded to a multiple of the stride.

        masked: (B, 1, H, W) bool, pixels that the encoder does not see.
        """
        coloured = self.normalised(images)
        if masked is not None:
            coloured = coloured.masked_fill(masked, 0)
        height, width = images.shape[-2:]
        padded_height, padded_width = self._padded_size(images)
        # zeros after normalisation: padding and masked pixels are the mean grey
        padded = F.pad(coloured, (0, padded_width - width, 0, padded_height - height))
        features: Sequence[Tensor] = self.encoder(padded.contiguous(memory_format=torch.channels_last))
        return features

    def normalised(self, images: Tensor) -> Tensor:
        """Return the encoder's input (B, 3, H, W) for thermal images (B, 1, H, W) in 0..1."""
        return (images.expand(-1, 3, -1, -1) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) for thermal images (B, 1, H, W) in 0..1, any H and W."""
        return self._cut(self.decoder(self.features(images)), images)

    def reconstruct(self, images: Tensor, masked: Tensor) -> Tensor:
        """Return the decoder's output (B, K, H, W) for images of which the encoder does not see the pixels `masked`."""
        return self._cut(self.decoder(self.features(images, masked)), images)

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of decoder and auxiliary head, both (B, K, H, W)."""
        assert self.auxiliary is not None
        features = self.features(images)
        return self._cut(self.decoder(features), images), self._cut(self.auxiliary(features), images)

    def _padded_size(self, images: Tensor) -> tuple[int, int]:
        """Return the height and width of the padded images."""
        # in this form torch.export can halve a side that is not known yet; with a remainder it cannot
        height, width = ((side + self.stride - 1) // self.stride * self.stride for side in images.shape[-2:])
        return height, width

    def _cut(self, logits: Tensor, images: Tensor) -> Tensor:
        """Resize logits to the padded images and cut the padding off."""
        height, width = images.shape[-2:]
        padded = self._padded_size(images)
        if logits.shape[-2:] != padded:
            logits = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def build(spec: BackboneSpec, num_classes: int, linear: bool = False, auxiliary: bool = False) -> Network:
    """Build a network with random weights from torch's global generator (seed it first).

    linear: a linear head in place of the decoder. auxiliary: with an auxiliary head. The encoder's weights do not depend on either.
    """
    network = Network(spec, *parts(spec, num_classes))
    if linear or auxiliary:
        with torch.no_grad():
            channels = widths(network.eval().features(torch.zeros(1, 1, 64, 64)))
        network.train()
        network.decoder = LinearHead(channels, num_classes) if linear else network.decoder
        network.auxiliary = AuxiliaryHead(channels, num_classes) if auxiliary else None
    return network.to(memory_format=torch.channels_last)


def pixel_head(network: Network) -> PixelHead:
    """Make a head for the network's last feature map, with random weights from torch's global generator."""
    was_training, side = network.training, 64 + -64 % network.stride
    with torch.no_grad():
        last = last_stages(network.eval().features(network.mean.new_zeros(1, 1, side, side)))[-1]
    network.train(was_training)
    return PixelHead(last.shape[1], max(1, side // last.shape[2])).to(memory_format=torch.channels_last)


def encoder_on_meta(spec: BackboneSpec) -> nn.Module:
    """Return the encoder on the meta device: its tensors have names, shapes and types, and no values."""
    if spec.builder != "own":
        with torch.device("meta"):
            return parts(spec, 2)[0]
    # a user's own code may read values while it builds, which the meta device does not have
    with torch.random.fork_rng(devices=[]):
        return parts(spec, 2)[0].to("meta")


def parts(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Return (encoder, decoder) as the backbone's builder makes them, with random weights."""
    encoder, decoder = importlib.import_module(f"backbones.{spec.builder}").build(spec, num_classes)
    return encoder, decoder
