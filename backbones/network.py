"""The network class of all backbones. Channels, normalisation, padding and output size are handled here, in a final forward
pass, so no encoder or decoder can forget them."""

import importlib
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.spec import BackboneSpec, Colour

STRIDE = 32  # inputs are padded to a multiple of it: encoders halve five times, and odd sizes fail nearly everywhere


@final
class Network(nn.Module):
    """`.encoder` maps (B, 3, H, W) to a list of feature maps, `.decoder` maps those to logits of any smaller size."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: BackboneSpec, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.decoder = decoder
        self.register_buffer("mean", torch.empty(1, 3, 1, 1))
        self.register_buffer("std", torch.empty(1, 3, 1, 1))
        self.set_normalisation(spec.mean, spec.std)

    def set_normalisation(self, mean: Colour, std: Colour) -> None:
        """Set the input normalisation of the encoder's weights, on 0..1."""
        self.mean.copy_(torch.tensor(mean).view(1, 3, 1, 1))
        self.std.copy_(torch.tensor(std).view(1, 3, 1, 1))

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Return the encoder's feature maps for thermal images (B, 1, H, W) in 0..1, padded to a multiple of 32."""
        coloured = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        height, width = images.shape[-2:]
        # zeros after normalisation: the padding is the mean grey
        padded = F.pad(coloured, (0, -width % STRIDE, 0, -height % STRIDE))
        features: Sequence[Tensor] = self.encoder(padded.contiguous(memory_format=torch.channels_last))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) for thermal images (B, 1, H, W) in 0..1, any H and W."""
        height, width = images.shape[-2:]
        logits: Tensor = self.decoder(self.features(images))
        padded = (height + -height % STRIDE, width + -width % STRIDE)
        if logits.shape[-2:] != padded:
            logits = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def build(spec: BackboneSpec, num_classes: int) -> Network:
    """Build a network with random weights from torch's global generator (seed it first)."""
    return Network(spec, *parts(spec, num_classes)).to(memory_format=torch.channels_last)


def encoder_tensors(spec: BackboneSpec) -> dict[str, Tensor]:
    """Return the encoder's tensors on the meta device: names, shapes and types, no values."""
    if spec.builder != "own":
        with torch.device("meta"):
            return dict(parts(spec, 2)[0].state_dict())
    # a user's own code may read values while it builds, which the meta device does not have
    with torch.random.fork_rng(devices=[]):
        tensors = parts(spec, 2)[0].state_dict()
    return {name: tensor.to("meta") for name, tensor in tensors.items()}


def parts(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Return (encoder, decoder) as the backbone's builder makes them, with random weights."""
    encoder, decoder = importlib.import_module(f"backbones.{spec.builder}").build(spec, num_classes)
    return encoder, decoder
