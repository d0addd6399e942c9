"""timm encoders with decoders from segmentation-models-pytorch.

Pyramid encoders (features at 1/4, 1/8, 1/16, 1/32) go with FPN, U-Net and UPerNet; those that can be dilated, such as CNNs,
also with DeepLabV3+. Plain ViTs, with features of one scale, go with DPT if their patches have 8, 16 or 32 px; `plain_vit` puts
them under FPN and UPerNet.
"""

import difflib
import inspect
import re
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from backbones import network
from backbones.spec import BackboneError, BackboneSpec

_DECODERS = {
    # half of the library's default widths, which halves the time of a training step
    "fpn": partial(smp.FPN, decoder_pyramid_channels=128, decoder_segmentation_channels=64),
    "unet": smp.Unet,
    "upernet": smp.UPerNet,
    "deeplabv3plus": smp.DeepLabV3Plus,
    "dpt": smp.DPT,
}
_DPT_PATCHES = (8, 16, 32)  # px; its scales are powers of two
_FOR_PLAIN_VITS = ("fpn", "upernet")  # besides dpt, which is built here
_MORE_DATA = (
    r"^ft_|in12k|in2[12]k|inw21k|jft|swag|seer|ig1b|yfcc|laion|lvd|webli|openai|clip|m3[08]m|ssld|indomain|goog_teacher"
)
# settings that let a transformer take images of any size, where its class has them
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
    """A plain ViT up to its last block. Returns four feature maps, then their prefix tokens, if any."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.model = encoder.get_submodule("model")
        for unused in {"norm", "neck"} & dict(self.model.named_children()).keys():
            setattr(self.model, unused, nn.Identity())
        self._run = encoder.forward  # keeps the encoder out of the module tree, whose tensor names are the model's

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
    """Return (encoder, decoder) with random weights. Encoder tensors have timm's names behind `model.`."""
    settings = any_size(spec.encoder)
    if spec.decoder == "dpt":
        settings |= {"num_classes": 0, "decoder_readout": "cat" if _has_tokens(spec.encoder) else "ignore"}
    whole = _DECODERS[spec.decoder](
        encoder_name=f"tu-{spec.encoder}", encoder_weights=None, in_channels=3, classes=num_classes, **settings
    )
    if spec.decoder == "dpt":
        return _ViT(whole.encoder), _DPT(whole.decoder, whole.segmentation_head)
    return whole.encoder, _Decoder(whole.decoder, whole.segmentation_head)


def encoder_names(spec: BackboneSpec) -> dict[str, str | None]:
    """Map timm's name of every tensor to its name in this backbone's encoder; None for unused ones such as the classifier.

    The encoder's names begin with `model.`, and have `_` for the first dot where timm's feature extractor split a list.
    """
    with torch.device("meta"):
        encoder = network.build(spec, 2).encoder
    own = {re.sub(r"^(model\.)+", "", name): name for name in encoder.state_dict()}
    return {name: own.get(name, own.get(name.replace(".", "_", 1))) for name in on_meta(spec.encoder).state_dict()}


def make_spec(decoder: str, encoder: str) -> BackboneSpec:
    """Make a spec for any timm encoder; build and run it once on the meta device to check that the pair is compatible.

    Its ImageNet weights are those of the encoder's tag, or timm's first tag if the name has none. There are none if the tag was
    trained on more than ImageNet-1k: the source `imagenet` must be what its name says.

    Raises:
        BackboneError: timm has no such encoder, or encoder and decoder are incompatible.
    """
    architecture, dot, tag = encoder.partition(".")
    known = timm.list_pretrained(f"{architecture}.*") if timm.is_model(architecture) else []
    if not timm.is_model(architecture) or (dot and encoder not in known):
        close = difflib.get_close_matches(encoder, known or timm.list_models(), n=3)
        raise BackboneError(f"timm has no encoder '{encoder}'" + (f"; nearest: {', '.join(close)}" if close else ""))
    builder = _builder(decoder, encoder)
    weights = next((name for name in ([encoder] if tag else known) if _saw_imagenet_1k_only(name)), None)
    config = timm.get_pretrained_cfg(weights or encoder)
    spec = BackboneSpec(
        f"{decoder}:{encoder}",
        builder,
        encoder,
        decoder,
        tuple(config.mean),
        tuple(config.std),
        hub=f"timm/{weights}" if weights else None,
    )
    _try(spec)
    return spec


def _builder(decoder: str, encoder: str) -> str:
    """Return the module that builds this pair.

    Raises:
        BackboneError: the decoder needs other features than the encoder has.
    """
    patch = patch_px(encoder)
    if patch is None and decoder == "dpt":
        raise BackboneError(f"dpt needs a plain ViT and {encoder} is a pyramid; use fpn, unet or upernet")
    if patch is None or decoder == "dpt":
        if patch is not None and patch not in _DPT_PATCHES:
            raise BackboneError(f"dpt needs patches of 8, 16 or 32 px and {encoder} has {patch}; use upernet or fpn")
        return "timm_decoders"
    if decoder not in _FOR_PLAIN_VITS:
        raise BackboneError(
            f"{decoder} needs a pyramid and {encoder} has features of one scale; use dpt, fpn or upernet"
        )
    return "plain_vit"


def _try(spec: BackboneSpec) -> None:
    """Build and run the network on the meta device, which has shapes but no values."""
    try:
        with torch.device("meta"), torch.no_grad():
            # neither square nor the size that a transformer was trained with
            network.build(spec, 2).eval()(torch.empty(1, 1, 64, 96))
    except Exception as error:  # encoders fail in many ways
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        why = "the encoder cannot be dilated" if "output_stride" in text else "tried on an image of 64 x 96 px"
        raise BackboneError(f"{spec.encoder} does not run with {spec.decoder}: {why} ({text})") from error


@cache
def on_meta(encoder: str) -> nn.Module:
    """Return timm's whole model on the meta device, which has shapes but no values."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(encoder)
    return model


def any_size(encoder: str) -> dict[str, Any]:
    """Return the settings of timm's model that let it take images of any size."""
    known: set[str] = set()
    for kind in type(on_meta(encoder)).__mro__:
        parameters = inspect.signature(kind).parameters
        known |= parameters.keys()
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            break  # it passes no others on to its base class
    return {name: value for name, value in _ANY_SIZE.items() if name in known}


def patch_px(encoder: str) -> int | None:
    """Return the side of a plain ViT's patches in px; None for an encoder with features of several scales."""
    rows: Any = on_meta(encoder).feature_info
    sides = {row["reduction"] for row in rows}
    return sides.pop() if len(sides) == 1 else None


def _has_tokens(encoder: str) -> bool:
    return getattr(on_meta(encoder), "num_prefix_tokens", 0) > 0


def _saw_imagenet_1k_only(name: str) -> bool:
    """Return whether a pretrained tag means ImageNet-1k and no more data, including a teacher's or a pretraining's."""
    tag = name.partition(".")[2]
    return bool(re.search(r"(^|_)in1k(_\d+)?$", tag)) and not re.search(_MORE_DATA, tag)
