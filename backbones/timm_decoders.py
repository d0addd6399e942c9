"""timm encoders under decoders from segmentation-models-pytorch."""

from functools import partial

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from backbones.spec import BackboneSpec

# half of the library's default widths: a training step on one core takes half the time
_DECODERS = {"fpn": partial(smp.FPN, decoder_pyramid_channels=128, decoder_segmentation_channels=64)}


class _Decoder(nn.Module):
    def __init__(self, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = head

    def forward(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(self.decoder(features))
        return logits


def build(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """(encoder, decoder) with random weights. Encoder tensors carry timm's names behind `model.`."""
    whole = _DECODERS[spec.decoder](
        encoder_name=f"tu-{spec.encoder}", encoder_weights=None, in_channels=3, classes=num_classes
    )
    return whole.encoder, _Decoder(whole.decoder, whole.segmentation_head)
