"""What was tried to make a training step faster, each against the network as it is. One JSON line a backbone.

python tests/benchmarks/variants.py
"""

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from backbones.network import build
from backbones.registry import BACKBONES

STEPS, BATCH, CROP, CLASSES = 8, 4, (128, 160), 5


def stepper(net: Any, half: bool = False, fused: bool = True) -> Callable[[], None]:
    """One training step on random pixels."""
    device = next(net.parameters()).device
    optimiser = torch.optim.AdamW(net.parameters(), fused=fused)
    images = torch.rand(BATCH, 1, *CROP, device=device)
    labels = torch.randint(CLASSES, (BATCH, *CROP), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = net(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        loss.item()

    return step


class Contiguous(nn.Module):
    """The same network in torch's default memory format."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net: Any = net.to(memory_format=torch.contiguous_format)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        coloured = (images.expand(-1, 3, -1, -1) - self.net.mean) / self.net.std
        logits = self.net.decoder(self.net.encoder(coloured.contiguous()))
        return nn.functional.interpolate(logits, CROP, mode="bilinear")


def main() -> None:
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in ("fpn-efficientnet-lite0", "segformer-b0"):

        def fresh(name: str = name) -> nn.Module:
            torch.manual_seed(0)
            return build(BACKBONES[name], CLASSES).to(device).train()

        steps = {
            "as it is": stepper(fresh(), half=device == "cuda"),
            "without channels_last": stepper(Contiguous(fresh()), half=device == "cuda"),
            "without fused AdamW": stepper(fresh(), half=device == "cuda", fused=False),
            "bf16 the other way": stepper(fresh(), half=device != "cuda"),
            "compiled": stepper(torch.compile(fresh()), half=device == "cuda"),
        }
        first: dict[str, float] = {}
        times: dict[str, list[float]] = {variant: [] for variant in steps}
        for variant, step in steps.items():
            began = time.perf_counter()
            step()
            first[variant] = time.perf_counter() - began
        for _ in range(STEPS):  # in turn, because the machine's speed drifts
            for variant, step in steps.items():
                began = time.perf_counter()
                step()
                times[variant].append(time.perf_counter() - began)
        base = median(times["as it is"])
        found = {variant: round(median(taken) / base, 2) for variant, taken in times.items()}
        print(
            json.dumps(
                {"backbone": name, "device": device, "ms": base * 1e3, "step_time_relative": found, "first_s": first}
            )
        )


if __name__ == "__main__":
    main()
