"""The training loop and prediction.

The last iterate is used, without checkpoint selection; a loss that is not finite ends the run; the same seed gives the same
weights, bit for bit on a CPU, and on one kind of GPU as far as its kernels are repeatable (`devices`).
"""

import io
import math
import pickle
import time
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, Subset

from backbones.network import Network
from backbones.transfer import state_sha256
from bench import DivergedError
from bench.spec import Protocol
from bench.spec.parts import Schedule
from bench.train import devices
from bench.train.batches import Decoded
from bench.train.devices import Device
from bench.train.loss import Objective
from bench.train.optimiser import lr_factor, parameter_groups
from pretrain_sources.hashing import derive_seed
from pretrain_sources.image_files import Pixels
from results.store import write_atomic

KEPT_EVERY_S = 30.0  # between two checkpoints of a training
LOOKED_EVERY_S = 1.0  # between two looks at the losses on a GPU, each of which waits for it
PREDICTED_AT_ONCE = 8  # frames on a GPU


Batch = tuple[Tensor, Tensor]  # images (B, 1, H, W) and labels (B, H, W), uint8
History = list[tuple[int, float, float]]  # (step from 1, loss, learning rate of the decoder)


class Progress(typing.Protocol):
    """A callback after every step: steps done, total steps, and values such as loss or val_miou."""

    def __call__(self, done: int, total: int, /, **facts: float) -> None:
        """Report progress."""


class Watch(typing.Protocol):
    """Looks at a network while it trains and leaves no trace in it; what it has seen is kept in checkpoints."""

    def __call__(self, step: int, network: Network, /) -> None:
        """Look, if this step (from 1) is one to look at."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it has seen so far."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore it."""


class Beside(typing.TypedDict, total=False):
    """What accompanies a training without affecting its result.

    checkpoint: a file that is saved periodically. If it exists, training resumes from it, to the same result.
    """

    checkpoint: Path | None
    watch: Watch | None


@dataclass(frozen=True)
class Training:
    """The settings of a training. frozen: the encoder stays as it is."""

    protocol: Protocol
    schedule: Schedule
    loss: Objective
    steps: int
    seed: int
    frozen: bool = False


def fit(
    network: Network,
    batches: Dataset[Batch],
    training: Training,
    report: Progress,
    **beside: typing.Unpack[Beside],
) -> History:
    """Train `network` in place over items 0..steps-1 of `batches`; return (step, loss, learning rate) of every step.

    Raises:
        DivergedError: the loss is not finite.
    """
    protocol, schedule, steps = training.protocol, training.schedule, training.steps
    device = devices.device_of(protocol)
    network.to(device.torch).train()
    before = _freeze(network.encoder) if training.frozen else None
    training.loss.to(device.torch)
    optimiser = torch.optim.AdamW(parameter_groups(network, schedule), fused=True)
    decay = LambdaLR(optimiser, lambda step: lr_factor(schedule, step, steps, protocol.poly_power))
    checkpoint, watch = beside.get("checkpoint"), beside.get("watch")
    parts = {"network": network, "optimiser": optimiser, "decay": decay} | ({} if watch is None else {"watch": watch})
    history = _resumed(checkpoint, parts, device.torch)
    pending: list[tuple[int, Tensor, float]] = []  # steps whose loss has not been looked at
    kept = looked = time.monotonic()
    for step, batch in enumerate(_loaded(batches, len(history), steps, device), start=len(history)):
        # for dropout and stochastic depth; makes every step reproducible on its own
        torch.manual_seed(derive_seed(training.seed, "step", step))
        value = _loss_of(network, training.loss, batch, protocol, device.torch)
        pending.append((step + 1, value.detach(), optimiser.param_groups[-1]["lr"]))
        if not device.is_gpu or time.monotonic() - looked > LOOKED_EVERY_S or step + 1 == steps:
            history += _looked_at(pending, training)
            looked = time.monotonic()
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        if protocol.grad_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), protocol.grad_clip)
        optimiser.step()
        decay.step()
        if watch is not None:
            watch(step + 1, network)
        if not pending:
            if checkpoint is not None and time.monotonic() - kept > KEPT_EVERY_S:
                _keep(checkpoint, parts, history)
                kept = time.monotonic()
            report(step + 1, steps, loss=history[-1][1])
    if before is not None and state_sha256(network.encoder.state_dict()) != before:
        raise RuntimeError("the encoder was frozen, and its weights changed")
    return history


def _freeze(encoder: nn.Module) -> str:
    """Stop an encoder from learning, BatchNorm's statistics and dropout included; return the hash of its weights."""
    encoder.requires_grad_(False).eval()
    return state_sha256(encoder.state_dict())


def _looked_at(pending: list[tuple[int, Tensor, float]], training: Training) -> History:
    """Empty `pending`; return (step, loss, learning rate). On a GPU this waits until it has computed them.

    Raises:
        DivergedError: a loss is not finite.
    """
    values = torch.stack([value for _, value, _ in pending]).tolist()
    rows = [(step, value, lr) for (step, _, lr), value in zip(pending, values, strict=True)]
    pending.clear()
    for step, value, _ in rows:
        if not math.isfinite(value):
            at = f"step {step} of {training.steps} (learning rate {training.schedule.lr:g})"
            raise DivergedError(f"the training loss is {value} at {at}")
    return rows


def _loaded(batches: Dataset[Batch], first: int, steps: int, device: Device) -> Iterator[Batch]:
    """Load items first..steps-1."""
    workers, rest = devices.loading_processes(device), Subset(batches, range(first, steps))
    return iter(DataLoader(rest, batch_size=None, num_workers=workers, pin_memory=device.torch.type == "cuda"))


def _loss_of(network: Network, loss: Objective, batch: Batch, protocol: Protocol, device: torch.device) -> Tensor:
    """Compute the loss of a batch: images (B, 1, H, W) uint8, labels (B, H, W)."""
    images, labels = batch
    images = images.to(device, non_blocking=True).float() / 255
    labels = labels.to(device, non_blocking=True)
    return loss.of(network, images, labels, devices.autocast(protocol, device))


def history_csv(history: History, val: Mapping[int, float] | None = None) -> str:
    """Format history.csv: a row for each step. val: step -> mIoU on val; any adds a column, empty at the other steps."""
    rows = [f"{step},{loss:.6g},{lr:.6g}" for step, loss, lr in history]
    if not val:
        return "\n".join(["step,loss,lr", *rows, ""])
    points = [f"{val[step]:.6g}" if step in val else "" for step, _, _ in history]
    return "\n".join(["step,loss,lr,val_miou", *map(",".join, zip(rows, points, strict=True)), ""])


def _keep(path: Path, parts: Mapping[str, Any], history: History) -> None:
    data = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in parts.items()} | {"history": history}, data)
    write_atomic(path, data.getvalue())


def _resumed(path: Path | None, parts: Mapping[str, Any], device: torch.device) -> History:
    """Restore a checkpoint and return its history; an empty one if the file is missing, damaged or lacks a part."""
    if path is None or not path.is_file():
        return []
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return []
    if not parts.keys() <= state.keys():  # made by an older version
        return []
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return [tuple(row) for row in state["history"]]


@torch.inference_mode()
def mean_loss(network: Network, batches: Dataset[Batch], count: int, loss: Objective, protocol: Protocol) -> float:
    """Compute the mean loss over items 0..count-1 of `batches`, without training."""
    device = devices.device_of(protocol).torch
    network.to(device).eval()
    loss.to(device)
    return sum(float(_loss_of(network, loss, batches[i], protocol, device)) for i in range(count)) / count


@torch.inference_mode()
def predict(
    network: Network, frames: Sequence[Decoded], protocol: Protocol, report: Progress
) -> Iterator[tuple[Decoded, Pixels]]:
    """Predict frames; yield (frame, (H, W) class indices at the resolution of the label).

    Raises:
        DivergedError: an output is not finite.
    """
    device = devices.device_of(protocol)
    network.to(device.torch).eval()
    done = 0
    for some in _of_one_size(frames, PREDICTED_AT_ONCE if device.is_gpu and protocol.window_px is None else 1):
        images = torch.from_numpy(np.stack([frame.image for frame in some]))[:, None].to(device.torch).float() / 255
        with devices.autocast(protocol, device.torch):
            together = _windows(network, images, protocol).float()
        for frame, logits in zip(some, torch.split(together, 1), strict=True):
            if logits.shape[-2:] != frame.label.shape:
                logits = F.interpolate(logits, size=frame.label.shape, mode="bilinear", align_corners=False)
            if not bool(torch.isfinite(logits).all()):  # argmax would call it background
                raise DivergedError(f"the network's output for {frame.id} is not finite")
            yield frame, logits[0].argmax(0).to(torch.uint8).cpu().numpy()
            done += 1
            report(done, len(frames))


def _of_one_size(frames: Sequence[Decoded], most: int) -> Iterator[list[Decoded]]:
    """Yield the frames in order, at most so many of one size at a time."""
    some: list[Decoded] = []
    for frame in frames:
        if some and (len(some) == most or frame.image.shape != some[0].image.shape):
            yield some
            some = []
        some.append(frame)
    if some:
        yield some


def _windows(network: Network, image: Tensor, protocol: Protocol) -> Tensor:
    """Compute logits (1, K, H, W) in one pass, or as the mean over sliding windows."""
    if protocol.window_px is None or protocol.stride_px is None:
        logits: Tensor = network(image)
        return logits
    corners = [
        _offsets(size, *ws)
        for size, ws in zip(image.shape[-2:], zip(protocol.window_px, protocol.stride_px, strict=True), strict=True)
    ]
    total: Tensor | float = 0.0
    count = torch.zeros_like(image)
    for top in corners[0]:
        for left in corners[1]:
            box = (..., slice(top, top + protocol.window_px[0]), slice(left, left + protocol.window_px[1]))
            part = network(image[box]).float()
            total = part.new_zeros(1, part.shape[1], *image.shape[-2:]) if isinstance(total, float) else total
            total[box] += part
            count[box] += 1
    assert isinstance(total, Tensor)
    return total / count


def _offsets(size: int, window: int, stride: int) -> list[int]:
    """Return the offsets of windows that cover `size`; the last window ends at the border."""
    last = max(0, size - window)
    return [*range(0, last, stride), last]
