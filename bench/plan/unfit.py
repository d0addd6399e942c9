"""Pairs of backbone or source and protocol that cannot be trained, refused before anything is."""

import math
from collections.abc import Iterable
from pathlib import Path

from backbones.registry import refuse_small_crop
from backbones.spec import BackboneError, BackboneSpec
from backbones.vit_layers import layers_above
from bench import BenchError
from bench.spec import Protocol
from pretrain_sources.card import SourceCard
from pretrain_sources.simmim import SimMIM


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


def refuse_whole_masks(cards: Iterable[SourceCard], protocol: Protocol, path: Path) -> None:
    """Refuse crops of which masked image modelling would leave nothing to see.

    path: of the matrix.

    Raises:
        BenchError: a source masks every square of a crop.
    """
    crop = protocol.crop_px
    for card in cards:
        if card.simmim is None or _leaves_something(card.simmim, crop):
            continue
        side = card.simmim.patch_px
        halves = (card.simmim.model_copy(update={"patch_px": side >> k}) for k in range(1, side.bit_length()))
        fits = (half.patch_px for half in halves if _leaves_something(half, crop))
        smaller = next((f"a smaller patch, such as {card.name}/patch-{p}" for p in fits), "a smaller mask_ratio")
        raise BenchError(
            f"{path}: '{card.name}' masks squares of {side} x {side} px, and nothing is left of the crops of {crop[0]} x {crop[1]} "
            f"px in {protocol.name}: choose larger crops or {smaller}"
        )


def _leaves_something(simmim: SimMIM, crop_px: tuple[int, int]) -> bool:
    return simmim.masked(crop_px) < math.prod(simmim.grid(crop_px))
