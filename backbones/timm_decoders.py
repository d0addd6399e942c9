"""timm encoders under decoders from segmentation-models-pytorch.

A pyramid encoder (features at 1/4, 1/8, 1/16, 1/32) goes under FPN, U-Net and UPerNet; one that can be dilated, as CNNs
can, also under DeepLabV3+; a plain ViT, whose features have one scale, goes under DPT alone.
"""

import difflib
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from backbones.spec import BackboneSpec, Refused

_DECODERS = {
    # half of the library's default widths: a training step on one core takes half the time
    "fpn": partial(smp.FPN, decoder_pyramid_channels=128, decoder_segmentation_channels=64),
    "unet": smp.Unet,
    "upernet": smp.UPerNet,
    "deeplabv3plus": smp.DeepLabV3Plus,
    "dpt": smp.DPT,
}
# what lets a transformer take images of any size, where its class has such a setting
_ANY_SIZE = {"strict_img_size": False, "dynamic_img_size": True}


class _Decoder(nn.Module):
    def __init__(self, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = head

    def forward(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(self.decoder(features))
        return logits


class _ViT(nn.Module):
    """A plain ViT without what comes after its last block. Returns four feature maps, then their prefix tokens, if any."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.model = encoder.get_submodule("model")
        for unused in {"norm", "neck"} & dict(self.model.named_children()).keys():
            setattr(self.model, unused, nn.Identity())
        self._run = encoder.forward  # holds the encoder outside of the module tree: its names are the model's

    def forward(self, images: Tensor) -> list[Tensor]:
        features, tokens = self._run(images)
        return [*features, *(token for token in tokens if token is not None)]


class _DPT(_Decoder):
    def forward(self, features: list[Tensor]) -> Tensor:
        maps = [feature for feature in features if feature.ndim == 4]
        tokens: Sequence[Tensor | None] = features[len(maps) :] or [None] * len(maps)
        logits: Tensor = self.head(self.decoder(maps, tokens))
        return logits


def build(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """(encoder, decoder) with random weights. Encoder tensors carry timm's names behind `model.`."""
    settings = _settings(spec.encoder)
    if spec.decoder == "dpt":
        settings |= {"num_classes": 0, "decoder_readout": "cat" if _has_tokens(spec.encoder) else "ignore"}
    whole = _DECODERS[spec.decoder](
        encoder_name=f"tu-{spec.encoder}", encoder_weights=None, in_channels=3, classes=num_classes, **settings
    )
    if spec.decoder == "dpt":
        return _ViT(whole.encoder), _DPT(whole.decoder, whole.segmentation_head)
    return whole.encoder, _Decoder(whole.decoder, whole.segmentation_head)


def make_spec(decoder: str, encoder: str) -> BackboneSpec:
    """A row for any timm encoder, built and run once without memory to see that the pair goes together.

    Its ImageNet weights are the encoder's tag, or, where the name has none, timm's first that saw ImageNet-1k only.

    Raises:
        Refused: timm has no such encoder, or the pair does not go together.
    """
    architecture, _, tag = encoder.partition(".")
    if not timm.is_model(architecture) or (tag and encoder not in timm.list_pretrained(f"{architecture}.*")):
        known = timm.list_pretrained(f"{architecture}.*") if timm.is_model(architecture) else timm.list_models()
        close = difflib.get_close_matches(encoder, known, n=3)
        raise Refused(f"timm has no encoder '{encoder}'" + (f"; nearest: {', '.join(close)}" if close else ""))
    scales = _scales(encoder)
    if decoder == "dpt" and len(scales) > 1:
        raise Refused(f"{encoder} is a pyramid, dpt takes plain ViTs: use fpn:{encoder}, unet: or upernet:")
    if decoder != "dpt" and len(scales) == 1:
        raise Refused(f"{encoder} has features of one scale, {decoder} needs a pyramid: use dpt:{encoder}")
    weights = encoder if tag else _imagenet_weights(architecture)
    known_as = timm.get_pretrained_cfg(weights or architecture)
    made = BackboneSpec(
        f"{decoder}:{encoder}",
        "timm_decoders",
        encoder,
        decoder,
        tuple(known_as.mean),
        tuple(known_as.std),
        hub=f"timm/{weights}" if weights else None,
    )
    _try(made)
    return made


def _try(spec: BackboneSpec) -> None:
    """Builds and runs the pair on the meta device, which holds shapes and no values."""
    try:
        with torch.device("meta"), torch.no_grad():
            encoder, decoder = build(spec, 2)
            # a size that is neither square nor what a transformer was made for
            decoder.eval()(encoder.eval()(torch.empty(1, 3, 64, 96)))
    except Exception as error:  # each encoder fails in its own way
        if spec.decoder == "deeplabv3plus":
            why = f"{spec.encoder} cannot be dilated, deeplabv3plus takes CNNs that can: use fpn:{spec.encoder}"
        else:
            text = " ".join(str(error).split())[:200]
            why = f"{spec.encoder} does not run under {spec.decoder} at sizes other than its own ({text})"
        raise Refused(why) from error


def _on_meta(encoder: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(encoder)
    return model


def _settings(encoder: str) -> dict[str, Any]:
    known = inspect.signature(type(_on_meta(encoder)).__init__).parameters
    return {name: value for name, value in _ANY_SIZE.items() if name in known}


def _has_tokens(encoder: str) -> bool:
    return getattr(_on_meta(encoder), "num_prefix_tokens", 0) > 0


def _scales(encoder: str) -> set[int]:
    """By how much the encoder's features are smaller than the image."""
    rows: Any = _on_meta(encoder).feature_info
    return {row["reduction"] for row in rows}


def _imagenet_weights(architecture: str) -> str | None:
    tags = [tag.split("_") for tag in timm.list_pretrained(f"{architecture}.*")]
    return next(("_".join(tag) for tag in tags if tag[-1].endswith("in1k") and "ft" not in tag), None)
