"""SegFormer from transformers: the MiT encoder and its own all-MLP decoder."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerModel

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


class _Encoder(SegformerModel):  # type: ignore[misc]  # the tensor names stay those of SegformerModel
    def forward(self, images: Tensor) -> Sequence[Tensor]:
        states: Sequence[Tensor] = super().forward(pixel_values=images, output_hidden_states=True).hidden_states
        return states


def config_of(spec: BackboneSpec, num_classes: int = 2) -> SegformerConfig:
    """The configuration of this size."""
    depths, widths, decoder = _SIZES[spec.encoder]
    return SegformerConfig(num_labels=num_classes, depths=depths, hidden_sizes=widths, decoder_hidden_size=decoder)


def build(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """(encoder, decoder) with random weights as transformers draws them."""
    config = config_of(spec, num_classes)
    whole = SegformerForSemanticSegmentation(config)
    encoder = _Encoder(config)
    encoder.load_state_dict(whole.segformer.state_dict())
    return encoder, whole.decode_head
