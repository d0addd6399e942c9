"""Pairs of backbone and protocol that cannot be trained, refused before anything is."""

from collections.abc import Iterable
from pathlib import Path

from backbones.registry import refuse_small_crop
from backbones.spec import BackboneError, BackboneSpec
from backbones.vit_layers import layers_above
from bench import BenchError
from bench.spec import Protocol


def refuse_unfit(backbones: Iterable[BackboneSpec], protocol: Protocol, path: Path) -> None:
    """Refuse crops below the size of a patch, and a decay of learning rates by layer where a backbone has no layers.

    path: of the matrix.

    Raises:
        BenchError: the protocol does not fit a backbone.
    """
    backbones = list(backbones)
    for spec in backbones:
        try:
            refuse_small_crop(spec, protocol.crop_px)
        except BackboneError as error:
            raise BenchError(f"{path}: backbone '{spec.name}': {error}") from error
    if protocol.default.layer_decay == 1 and protocol.search.layer_decay is None:
        return
    from backbones.encoder_layouts import encoder_of

    for spec in backbones:
        if not layers_above(encoder_of(spec).tensors):
            raise BenchError(
                f"{path}: the layer_decay of {protocol.name} needs a plain ViT, and '{spec.name}' is none: name one such as "
                "'upernet:vit_small_patch16_224', or choose another protocol"
            )
