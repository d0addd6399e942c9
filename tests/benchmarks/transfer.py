"""A training step on a frozen encoder, and one of a linear probe, beside a step of finetuning. One JSON line a pair.

python tests/benchmarks/transfer.py [BACKBONE ...]
"""

import json
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from backbones.registry import find_backbone
from bench.shipped import load_protocol
from bench.train.loop import Training, fit
from bench.train.loss import SegmentationLoss
from bench.train.weights import build_for

NAMES = (
    "fpn-efficientnet-lite0",
    "unet-efficientnet-lite1",
    "segformer-b0",
    "deeplabv3plus-resnet50",
    "upernet-swin-tiny",
    "dpt-vit-small",
)
CLASSES, STEPS, WARM = 5, 9, 3


def stepper(name: str, transfer: str) -> Callable[[], float]:
    """Return a function that trains some steps on random pixels, and says the median seconds of one."""
    protocol = load_protocol("hit-uav-v2").model_copy(update={"transfer": transfer})
    net = build_for(protocol, find_backbone(name), CLASSES)
    images = torch.randint(256, (protocol.batch, 1, *protocol.crop_px), dtype=torch.uint8)
    labels = torch.randint(CLASSES, (protocol.batch, *protocol.crop_px), dtype=torch.uint8)
    loss = SegmentationLoss(protocol.loss, np.ones(CLASSES))
    training = Training(protocol, protocol.default, loss, STEPS, 0, frozen=transfer != "finetune")

    def run() -> float:
        times: list[float] = []
        fit(net, [(images, labels)] * STEPS, training, lambda *_, **__: times.append(time.perf_counter()))  # type: ignore[arg-type]
        return median(np.diff(times)[WARM - 1 :])

    return run


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names or NAMES:
        steps = {transfer: stepper(name, transfer) for transfer in ("finetune", "frozen", "linear")}
        rounds = [
            {transfer: run() for transfer, run in steps.items()} for _ in range(3)
        ]  # in turn: the machine's speed drifts
        s = {transfer: min(each[transfer] for each in rounds) for transfer in steps}
        for transfer in ("frozen", "linear"):
            row = {"backbone": name, "transfer": transfer, "ms": s[transfer] * 1e3, "finetune_ms": s["finetune"] * 1e3}
            print(json.dumps(row | {"times_finetune": s["finetune"] / s[transfer]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
