"""What the steps share: the setting, rendered frames, and a row of the summary."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_gpus
import numpy as np
import torch
from torch import nn

from backbones.network import Network, build
from backbones.registry import BACKBONES
from bench import scenes
from bench.shipped import load_protocol
from bench.spec import Protocol
from bench.targets import Target, open_target
from bench.train import devices, repeatable
from bench.train.batches import Batches, Decoded, open_split
from bench.train.loss import SegmentationLoss

Row = dict[str, Any]  # what, value, aim, met


@dataclass(frozen=True)
class Setting:
    """Where results go, what computes, and whether everything is small enough for a CPU."""

    out: Path
    device: str
    small: bool

    @property
    def size(self) -> tuple[int, int]:
        return (64, 96) if self.small else (480, 640)

    @property
    def families(self) -> tuple[str, ...]:
        """A backbone of each family of encoders."""
        if self.small:
            return ("fpn-efficientnet-lite0",)
        return (
            *("segformer-b0", "fpn-efficientnet-lite0", "unet-resnet34", "deeplabv3plus-resnet50"),
            *("upernet-convnext-tiny", "upernet-swin-tiny", "dpt-vit-small"),
        )

    def protocol(self, **changes: Any) -> Protocol:
        """soda-v1 with changes. On a CPU it computes in fp32, through the code for a GPU."""
        fields = load_protocol("soda-v1").model_dump() | {"crop_px": self.size, "batch": 2 if self.small else 8}
        fields |= {"precision": "bf16"} | changes
        if self.device == "cpu":
            fields |= {"device": "any", "precision": "fp32"}
        return Protocol.model_validate(fields)

    def target(self) -> Target:
        """Rendered frames, made once."""
        folder = self.out / "data"
        if not (folder / "scenes").is_dir():
            scenes.make(folder / "scenes", 60, self.size, 0, lambda *_: None)
        return open_target("scenes", folder)

    @contextlib.contextmanager
    def as_gpu(self) -> Iterator[None]:
        """On a CPU, pretend that it is a GPU."""
        real, learns = devices.device_of, repeatable._learns_on_gpu
        if self.device == "cpu":
            devices.device_of, repeatable._learns_on_gpu = fake_gpus.fake, lambda images: images.requires_grad
            os.environ[devices.BESIDE] = "1"
        try:
            yield
        finally:
            devices.device_of, repeatable._learns_on_gpu = real, learns


def row(what: str, value: object, aim: str = "-", met: bool | None = None) -> Row:
    return {"what": what, "value": str(value), "aim": aim, "met": met}


def frames_of(target: Target, protocol: Protocol, split: str = "train") -> list[Decoded]:
    return open_split(target, split, protocol)


def network_of(backbone: str, classes: int, without_dropout: bool = False) -> Network:
    """Return a network with the weights of seed 0; without dropout a CPU and a GPU have nothing to draw."""
    torch.manual_seed(0)
    net = build(BACKBONES[backbone], classes)
    if without_dropout:
        for module in net.modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0
            if hasattr(module, "drop_prob"):
                setattr(module, "drop_prob", 0.0)  # noqa: B010 - of timm and transformers
    return net


def data_of(target: Target, protocol: Protocol, steps: int) -> tuple[Batches, SegmentationLoss]:
    classes = len(target.spec.classes)
    batches = Batches(frames_of(target, protocol), protocol, classes, 0, steps)
    return batches, SegmentationLoss(protocol.loss, np.ones(classes))
