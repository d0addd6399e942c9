"""SegFormer from transformers: MiT encoder and all-MLP decoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerModel
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from backbones.spec import BackboneSpec

# Xie et al. 2021, table 6 of the appendix, and the decoder's width from section 4.1: depths, widths, decoder width
_SMALL, _LARGE = [32, 64, 160, 256], [64, 128, 320, 512]
_SIZES = {
    "mit-b0": ([2, 2, 2, 2], _SMALL, 256),
    "mit-b1": ([2, 2, 2, 2], _LARGE, 256),
    "mit-b2": ([3, 4, 6, 3], _LARGE, 768),
    "mit-b3": ([3, 4, 18, 3], _LARGE, 768),
    "mit-b4": ([3, 8, 27, 3], _LARGE, 768),
    "mit-b5": ([3, 6, 40, 3], _LARGE, 768),
}


class _Encoder(SegformerModel):  # type: ignore[misc]  # keeps the tensor names of SegformerModel
    def forward(self, images: Tensor) -> Sequence[Tensor]:
        states: Sequence[Tensor] = super().forward(pixel_values=images, output_hidden_states=True).hidden_states
        return states


class _Decoder(SegformerDecodeHead):  # type: ignore[misc]
    """The library's decoder in another order: a 1 x 1 convolution and bilinear upsampling commute, so each scale is fused at
    its own size, without the wide stack of upsampled maps. Same function, same tensors, about half the time of a step."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        parts = self.linear_fuse.weight.flatten(1).chunk(len(features), dim=1)  # for the coarsest scale first
        fused = torch.zeros(())
        for feature, projection, part in zip(features, self.linear_projections, reversed(parts), strict=True):
            mixed = F.linear(projection.proj(feature.movedim(1, -1)), part).movedim(-1, 1)
            fused = fused + F.interpolate(mixed, size=features[0].shape[-2:], mode="bilinear", align_corners=False)
        fused = self.dropout(self.activation(self.batch_norm(fused)))
        logits = F.linear(fused.movedim(1, -1), self.classifier.weight.flatten(1), self.classifier.bias)
        return logits.movedim(-1, 1)


def config_of(spec: BackboneSpec, num_classes: int = 2) -> SegformerConfig:
    """Return the configuration of this size."""
    depths, widths, decoder = _SIZES[spec.encoder]
    return SegformerConfig(num_labels=num_classes, depths=depths, hidden_sizes=widths, decoder_hidden_size=decoder)


def build(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Return (encoder, decoder) with random weights as transformers initialises them."""
    config = config_of(spec, num_classes)
    whole = SegformerForSemanticSegmentation(config)
    encoder, decoder = _Encoder(config), _Decoder(config)
    encoder.load_state_dict(whole.segformer.state_dict())
    decoder.load_state_dict(whole.decode_head.state_dict())
    return encoder, decoder
