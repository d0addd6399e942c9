"""A network of a few thousand parameters, for tests: convolutions, BatchNorm buffers, three scales."""

from torch import Tensor, nn

from backbones.spec import BackboneSpec

_WIDTHS = (8, 16, 24)


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_block(a, b) for a, b in zip((3, *_WIDTHS), _WIDTHS, strict=False))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


class _Decoder(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in _WIDTHS)

    def forward(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.heads[0](features[0])
        for head, feature in zip(self.heads[1:], features[1:], strict=True):
            logits = logits + nn.functional.interpolate(head(feature), size=logits.shape[-2:], mode="bilinear")
        return logits


def build(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Return (encoder, decoder) with random weights."""
    return _Encoder(), _Decoder(num_classes)
