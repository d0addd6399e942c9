"""The losses of trainings."""

from contextlib import AbstractContextManager

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from backbones.network import Network
from bench.spec.parts import Loss
from pretrain_sources.image_files import IGNORE


class Objective(nn.Module):
    """What a training minimises."""

    def of(self, network: Network, images: Tensor, labels: Tensor, precision: AbstractContextManager[object]) -> Tensor:
        """Return the loss, a scalar, of a network on images (B, 1, H, W) in 0..1 with labels (B, H, W).

        precision: the context in which the network computes.
        """
        raise NotImplementedError


class SegmentationLoss(Objective):
    """Cross-entropy with class weights, plus Dice (segmentation-models-pytorch), over logits (B, K, H, W) and labels (B, H, W)."""

    def __init__(self, settings: Loss, weights: NDArray[np.float64]) -> None:
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss(weight=torch.tensor(weights, dtype=torch.float32), ignore_index=IGNORE)
        classes = None if settings.dice_background else list(range(1, len(weights)))
        self.dice = smp.losses.DiceLoss("multiclass", classes=classes, ignore_index=IGNORE)
        self.dice_weight = settings.dice_weight
        self.auxiliary_weight = settings.auxiliary_weight

    def of(self, network: Network, images: Tensor, labels: Tensor, precision: AbstractContextManager[object]) -> Tensor:
        """Return the loss of the logits; in training also that of the auxiliary head, where there is one."""
        labels, extra = labels.long(), None
        with precision:
            if network.training and network.auxiliary is not None:
                logits, extra = network.with_auxiliary(images)
            else:
                logits = network(images)
        value: Tensor = self(logits.float(), labels)
        return value if extra is None else value + self.auxiliary_weight * self(extra.float(), labels)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return a scalar; 0 if every pixel is ignored."""
        if labels.is_cuda:
            return self._on_gpu(logits, labels)
        if not bool((labels != IGNORE).any()):
            return logits.sum() * 0.0  # cross-entropy would be 0 / 0
        loss: Tensor = self.cross_entropy(logits, labels) + self.dice_weight * self.dice(logits, labels)
        return loss

    def _on_gpu(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the same without waiting for the GPU, and added up in a fixed order, which torch's mean is not."""
        weight, counted = self.cross_entropy.weight, labels != IGNORE
        assert weight is not None
        if self.dice.classes is not None:  # no buffer of the module: .to() leaves it on the CPU
            self.dice.classes = self.dice.classes.to(labels.device)
        each = F.cross_entropy(logits, labels, weight, ignore_index=IGNORE, reduction="none")
        total = (weight[labels.where(counted, 0)] * counted).sum()
        mean = each.sum() / total.where(total > 0, 1)
        loss: Tensor = mean + self.dice_weight * self.dice(logits, labels)
        return torch.where(counted.any(), loss, logits.sum() * 0.0)
