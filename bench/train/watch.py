"""The val curve of a training: mIoU on a few val frames at about ten steps, to see whether it still rises.

No choice follows from it and no result depends on it, so its settings are constants and not the protocol's.
"""

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from backbones.network import Network
from bench import DivergedError
from bench.score import confusion_matrix
from bench.spec import Protocol
from bench.targets import Target
from bench.train.batches import choose, open_split
from bench.train.loop import predict
from pretrain_sources.pool import evenly
from results import metrics
from results.record import VAL

POINTS = 10
FRAMES = 16  # at most, and one at least
STEPS_A_FRAME = 20  # a short training has fewer frames, so that its points take no longer than its steps


def steps_watched(steps: int) -> frozenset[int]:
    """Return the steps, from 1, after which val is predicted: about ten, evenly spaced, with the last; fewer if there are fewer."""
    return frozenset(round(k * steps / POINTS) for k in range(1, POINTS + 1)) - {0}


def frames_watched(steps: int) -> int:
    """Return how many val frames are predicted at each point of a training of so many steps; val may have fewer."""
    return min(FRAMES, max(1, steps // STEPS_A_FRAME))


class ValCurve:
    """Predicts a fixed, even choice of val frames during a training, as the protocol predicts test frames.

    A protocol that selects on `test` trains on val, so there are no frames and no points.

    Attributes:
        frames: the val frames. points: step -> mIoU; a step without a defined one is missing.
        seconds: time spent on the frames and the points in this process.
    """

    def __init__(self, target: Target, protocol: Protocol, steps: int) -> None:
        began = time.monotonic()
        most = frames_watched(steps) if protocol.select_on == VAL else 0
        chosen = evenly(choose(target, VAL, protocol), most)
        self.frames = open_split(target, VAL, protocol, only={frame.id for frame in chosen})
        self.points: dict[int, float] = {}
        self._steps = steps_watched(steps) if self.frames else frozenset()
        self._protocol, self._classes = protocol, len(target.spec.classes)
        self.seconds = time.monotonic() - began

    def __call__(self, step: int, network: Network, /) -> None:
        """Add a point if this step is one of those watched; the network's weights, buffers and modes stay as they are."""
        if step not in self._steps:
            return
        if next(network.parameters()).is_cuda:
            torch.cuda.synchronize()  # steps that still compute are training
        began = time.monotonic()
        modes = [(part, part.training) for part in network.modules()]
        with contextlib.suppress(DivergedError, torch.OutOfMemoryError):  # a point is no reason to fail a run
            if not math.isnan(value := self._miou(network)):
                self.points[step] = value
        for part, mode in modes:  # a frozen encoder in training mode would move its batch statistics
            part.training = mode
        self.seconds += time.monotonic() - began

    def _miou(self, network: Network) -> float:
        total = np.zeros((self._classes, self._classes), dtype=np.int64)
        for frame, pred in predict(network, self.frames, self._protocol, lambda *_, **__: None):
            total += confusion_matrix(pred, frame.label, self._classes)
        return metrics.miou(total)

    def state_dict(self) -> dict[str, Any]:
        """Return the points so far."""
        return {"points": dict(self.points)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore the points."""
        self.points = dict(state["points"])
