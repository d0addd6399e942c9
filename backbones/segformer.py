"""SegFormer from transformers: the MiT encoder and its own all-MLP decoder."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerModel

from backbones.spec import BackboneSpec

# Xie et al. 2021, table 6 of the appendix: widths and depths of the five sizes; b0 is the configuration's default
_SIZES = {"mit-b0": {"hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "decoder_hidden_size": 256}}


class _Encoder(SegformerModel):  # type: ignore[misc]  # the tensor names stay those of SegformerModel
    def forward(self, images: Tensor) -> Sequence[Tensor]:
        states: Sequence[Tensor] = super().forward(pixel_values=images, output_hidden_states=True).hidden_states
        return states


def config_of(spec: BackboneSpec, num_classes: int = 2) -> SegformerConfig:
    """The configuration of this size."""
    return SegformerConfig(num_labels=num_classes, **_SIZES[spec.encoder])


def build(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """(encoder, decoder) with random weights as transformers draws them."""
    config = config_of(spec, num_classes)
    whole = SegformerForSemanticSegmentation(config)
    encoder = _Encoder(config)
    encoder.load_state_dict(whole.segformer.state_dict())
    return encoder, whole.decode_head
