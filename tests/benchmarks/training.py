"""A training step, data included, against the loop that a user would write and against the bare model. One JSON line a backbone.

python tests/benchmarks/training.py DATA TARGET
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from backbones.network import build
from backbones.registry import BACKBONES
from backbones.segformer import config_of
from backbones.spec import BackboneSpec
from bench.shipped import load_protocol
from bench.targets import Target, open_target
from bench.train.batches import Batches, open_split
from bench.train.devices import device_of
from bench.train.loop import Training, fit
from bench.train.loss import SegmentationLoss

BACKBONE_NAMES = ("fpn-efficientnet-lite0", "unet-resnet34", "segformer-b0")
ROUNDS = 5
ON_GPU = torch.cuda.is_available()
WARM = 24 if ON_GPU else 1  # steps that are not counted
STEPS = WARM + (240 if ON_GPU else 6)


class UsersDataset(Dataset):
    """Decodes with PIL and augments with torchvision, frame by frame, as tutorials do."""

    def __init__(self, target: Target, crop: tuple[int, int], length: int):
        self.frames, self.length = target.splits["train"], length
        self.transforms = v2.Compose(
            [
                v2.RandomCrop(crop, pad_if_needed=True),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.ColorJitter(0.2, 0.2),
                v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}, scale=True),
                v2.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        frame = self.frames[torch.randint(len(self.frames), ())]
        with Image.open(frame.image) as image, Image.open(frame.label) as label:
            pixels = tv_tensors.Image(v2.functional.pil_to_tensor(image.convert("RGB")))
            labels = tv_tensors.Mask(torch.from_numpy(np.array(label)))
        return self.transforms(pixels, labels)


class UsersModel(nn.Module):
    """The same network as its library gives it, in torch's default memory format."""

    def __init__(self, spec: BackboneSpec, classes: int):
        super().__init__()
        net = build(spec, classes)
        self.encoder, self.decoder = net.encoder, net.decoder
        if spec.builder == "segformer":
            self.decoder = SegformerDecodeHead(config_of(spec, classes))
        self.to(memory_format=torch.contiguous_format)

    def forward(self, images):
        logits = self.decoder(self.encoder(images))
        return nn.functional.interpolate(logits, images.shape[-2:], mode="bilinear")


def users_loop(spec: BackboneSpec, target: Target, protocol, device) -> Iterator[None]:
    """One step at a time."""
    classes = len(target.spec.classes)
    dataset = UsersDataset(target, protocol.crop_px, protocol.batch * STEPS)
    loader = DataLoader(dataset, protocol.batch, num_workers=8 if ON_GPU else 0)
    net = UsersModel(spec, classes).to(device).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    cross_entropy, dice = nn.CrossEntropyLoss(ignore_index=255), smp.losses.DiceLoss("multiclass", ignore_index=255)
    for images, labels in loader:
        with torch.autocast(device.type, torch.bfloat16, enabled=ON_GPU):
            logits = net(images.to(device)).float()
        labels = labels.to(device)
        loss = cross_entropy(logits, labels) + dice(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), protocol.grad_clip)
        optimiser.step()
        loss.item()
        yield


def bare_model(spec: BackboneSpec, batch, loss: nn.Module, protocol, device) -> Iterator[None]:
    """Forward, loss, backward, update, as `fit` does them, on one batch that is there already."""
    net = build(spec, protocol_classes(loss)).to(device).train()
    images, labels = batch[0].to(device).float() / 255, batch[1].to(device).long()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    for _ in range(STEPS):
        with torch.autocast(device.type, torch.bfloat16, enabled=ON_GPU):
            logits = net(images)
        value = loss(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), protocol.grad_clip)
        optimiser.step()
        value.item()
        yield


def protocol_classes(loss: Any) -> int:
    return len(loss.cross_entropy.weight)


def seconds_a_step(steps: Iterator[None]) -> list[float]:
    """Without the first steps: they warm up, and where there are loading processes they find batches made beforehand."""
    return list(np.diff([time.perf_counter() for _ in steps])[WARM - 1 :])


def harness(spec: BackboneSpec, batches: Batches, loss: SegmentationLoss, protocol) -> list[float]:
    """What `fit` takes, seen from its progress reports, which on a GPU come about once a second."""
    times: list[float] = []
    steps: list[int] = []
    net = build(spec, protocol_classes(loss))

    def stamp(done: int, total: int, /, **facts: float) -> None:
        times.append(time.perf_counter())
        steps.append(done)

    fit(net, batches, Training(protocol, protocol.default, loss, STEPS, seed=0), stamp)
    each = np.diff(times) / np.diff(steps)
    return list(each[np.array(steps[:-1]) >= WARM])


def main(data: Path, name: str, device_name: str) -> None:
    protocol = load_protocol("hit-uav-quick-v1").model_copy(update={"device": device_name})
    device = device_of(protocol).torch
    torch.set_num_threads(protocol.threads)
    target = open_target(name, data)
    classes = len(target.spec.classes)
    frames = open_split(target, "train", protocol.model_copy(update={"max_frames": 100}))
    batches = Batches(frames, protocol, classes, 0, STEPS)
    loss = SegmentationLoss(protocol.loss, np.ones(classes)).to(device)
    for spec in (BACKBONES[backbone] for backbone in BACKBONE_NAMES):
        variants: dict[str, Callable[[], list[float]]] = {
            "user": lambda: seconds_a_step(users_loop(spec, target, protocol, device)),  # noqa: B023 - called in this loop
            "bare": lambda: seconds_a_step(bare_model(spec, batches[0], loss, protocol, device)),  # noqa: B023
            "ours": lambda: harness(spec, batches, loss, protocol),  # noqa: B023
        }
        times: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(ROUNDS):  # in turn, because the machine's speed drifts
            for variant, run in variants.items():
                times[variant] += run()
        user, bare, ours = (median(times[variant]) for variant in ("user", "bare", "ours"))
        row = {"backbone": spec.name, "device": device.type, "user_ms": user * 1e3, "bare_ms": bare * 1e3}
        print(json.dumps(row | {"ms": ours * 1e3, "times_user": user / ours, "over_bare": ours / bare - 1}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], "cuda" if ON_GPU else "cpu")
