"""A backbone of one's own that keeps the contract, and one for each way to break it by accident."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

version = "1"
Change = Callable[[Tensor], Tensor]


class Encoder(nn.Module):
    def __init__(self, first: nn.Module | None = None) -> None:
        super().__init__()
        self.fine = nn.Sequential(first or nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8))
        self.coarse = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


class Decoder(nn.Module):
    def __init__(self, num_classes: int, change: Change = lambda logits: logits) -> None:
        super().__init__()
        self.head, self.change = nn.Conv2d(12, num_classes, 1), change

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.change(self.head(features[-1]))


def good(num_classes: int) -> tuple[nn.Module, nn.Module]:
    return Encoder(), Decoder(num_classes)


good.mean, good.std = [0, 0.5, 1], (1, 0.25, 0.5)  # type: ignore[attr-defined]


class Changed(Encoder):
    """An encoder whose features are changed."""

    def __init__(self, change: Callable[[list[Tensor]], object]) -> None:
        super().__init__()
        self.change = change

    def forward(self, images: Tensor) -> object:  # type: ignore[override]
        return self.change(super().forward(images))


def _encoder(change: Callable[[list[Tensor]], object]) -> Callable[[int], tuple[nn.Module, nn.Module]]:
    return lambda num_classes: (Changed(change), Decoder(num_classes))


def _decoder(change: Change) -> Callable[[int], tuple[nn.Module, nn.Module]]:
    return lambda num_classes: (Encoder(), Decoder(num_classes, change))


one_tensor = _encoder(lambda features: features[-1])
a_dictionary = _encoder(lambda features: dict(enumerate(features)))
no_features = _encoder(lambda features: None)
an_empty_list = _encoder(lambda features: [])
none_among_them = _encoder(lambda features: [None, *features])
tokens_only = _encoder(lambda features: [feature.flatten(2).movedim(1, -1) for feature in features])
tokens_first = _encoder(lambda features: [features[0].flatten(2), *features])
without_batch = _encoder(lambda features: [*features, features[0][:1]])
coarse_first = _encoder(lambda features: [features[1], features[0], features[1]])
a_constant_map = _encoder(lambda features: [torch.zeros_like(features[0]), *features])
random_in_eval = _encoder(lambda features: [features[0], F.dropout(features[1])])

as_a_list = _decoder(lambda logits: [logits])  # type: ignore[arg-type, return-value]
classes_only = _decoder(lambda logits: logits.mean((2, 3)))
labels = _decoder(lambda logits: logits.argmax(1, keepdim=True))
one_class_more = _decoder(lambda logits: torch.cat([logits, logits[:, :1]], 1))
another_batch = _decoder(lambda logits: logits[:1])
too_large = _decoder(lambda logits: F.interpolate(logits, scale_factor=16))
transposed = _decoder(lambda logits: logits.mT)
not_finite = _decoder(lambda logits: logits.log())
one_colour = _decoder(lambda logits: logits.mean((2, 3), keepdim=True).expand_as(logits))
blind = _decoder(lambda logits: logits * 0 + torch.arange(logits[0, 0].numel()).view(1, 1, *logits.shape[2:]))


class _Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [Encoder()]  # a plain list, which torch does not look into

    def forward(self, images: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.layers[0](images)
        return features


def no_parameters(num_classes: int) -> tuple[nn.Module, nn.Module]:
    return _Hidden(), Decoder(num_classes)


class _Scaled(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        images *= 2
        return super().forward(images)


def in_place(num_classes: int) -> tuple[nn.Module, nn.Module]:
    return Encoder(_Scaled(3, 8, 3, stride=4, padding=1)), Decoder(num_classes)


def lazy(num_classes: int) -> tuple[nn.Module, nn.Module]:
    return Encoder(nn.LazyConv2d(8, 3, stride=4, padding=1)), Decoder(num_classes)


class _Growing(Encoder):
    def forward(self, images: Tensor) -> list[Tensor]:
        self.register_buffer("grid", torch.rand(images.shape[-2:]))
        return super().forward(images)


def growing(num_classes: int) -> tuple[nn.Module, nn.Module]:
    return _Growing(), Decoder(num_classes)


def tied(num_classes: int) -> tuple[nn.Module, nn.Module]:
    encoder, decoder = Encoder(), Decoder(num_classes)
    encoder.again = encoder.coarse
    return encoder, decoder


def unused(num_classes: int) -> tuple[nn.Module, nn.Module]:
    encoder = Encoder()
    encoder.classifier = nn.Linear(12, 1000)
    return encoder, Decoder(num_classes)


def frozen(num_classes: int) -> tuple[nn.Module, nn.Module]:
    return Encoder().requires_grad_(False), Decoder(num_classes)


def drawn_by_numpy(num_classes: int) -> tuple[nn.Module, nn.Module]:
    encoder = Encoder()
    drawn = np.random.default_rng().standard_normal(tuple(encoder.coarse.weight.shape), np.float32)
    encoder.coarse.weight.data = torch.from_numpy(drawn)
    return encoder, Decoder(num_classes)


def pretrained(num_classes: int) -> tuple[nn.Module, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        encoder = Encoder()  # the same weights whatever the seed, as if they were read from a file
    return encoder, Decoder(num_classes)


def sized_by_classes(num_classes: int) -> tuple[nn.Module, nn.Module]:
    encoder = Encoder()
    encoder.fine.append(nn.Conv2d(8, num_classes, 1)).append(nn.Conv2d(num_classes, 8, 1))
    return encoder, Decoder(num_classes)


def constant_buffer(num_classes: int) -> tuple[nn.Module, nn.Module]:
    encoder = Encoder()
    encoder.register_buffer("mask", torch.ones(4, 4))
    return encoder, Decoder(num_classes)


class _Positions(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, 3, 4, 4))

    def forward(self, images: Tensor) -> list[Tensor]:
        return super().forward(images + F.interpolate(self.positions, images.shape[-2:]))


def zeros_at_first(num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Zeros of a position embedding are no breach."""
    return _Positions(), Decoder(num_classes)


def raises(num_classes: int) -> tuple[nn.Module, nn.Module]:
    raise SystemExit(f"no {num_classes} classes")


def fails_on_images(num_classes: int) -> tuple[nn.Module, nn.Module]:
    return Changed(lambda features: [features[0], features[1] @ features[0]]), Decoder(num_classes)


def only_one(num_classes: int) -> nn.Module:
    return Encoder()


def not_modules(num_classes: int) -> tuple[type, nn.Module]:
    return Encoder, Decoder(num_classes)
