"""Pretraining without masks: SimMIM (Xie et al., arXiv 2111.09886) for every encoder alike.

Squares of a crop are hidden, and a light head on the encoder's last feature map predicts their grey values. Every encoder has such
a map, its coarsest, and all stages lie before it, so all of them learn; the paper takes it of a pyramid (Swin) and of a plain ViT.
Two things differ from the paper, so that CNNs and transformers do the same: hidden pixels are the mean grey in the input, where the
paper has a learned token behind a transformer's patch embedding; and images are grey, so one value is predicted for each pixel.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from backbones.network import Network, pixel_head
from bench.spec import Protocol
from bench.train.corpus_images import Part
from bench.train.lesson import Lesson, split
from bench.train.loop import Batch
from bench.train.loss import Objective
from bench.train.pool_images import PoolImages, usable
from pretrain_sources.hashing import derive_seed
from pretrain_sources.image_files import IGNORE
from pretrain_sources.pool import PoolImage, images_hash
from pretrain_sources.simmim import SimMIM

ANY_CLASSES = 2  # of the decoder that the head replaces
MASKED = 1  # label of a masked pixel; a visible one has 0, and one beyond the edge of the image IGNORE


class MaskedBatches(Dataset[Batch]):
    """Item i is the batch of step i: images (B, 1, h, w) uint8, and labels (B, h, w) uint8 that say which pixels are masked.

    The squares are a pure function of seed and step, as the crops are.
    """

    def __init__(self, crops: Dataset[Batch], simmim: SimMIM, seed: int) -> None:
        """crops: images with labels that are 0, or IGNORE beyond the edge of an image."""
        self._crops, self._simmim, self._seed = crops, simmim, seed

    def __getitem__(self, step: int) -> Batch:
        images, labels = self._crops[step]
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "masked squares", step))
        masked = torch.stack(
            [_squares(self._simmim, (image.shape[-2], image.shape[-1]), generator) for image in images]
        )
        return images, torch.where(masked & (labels != IGNORE), MASKED, labels)


def _squares(simmim: SimMIM, crop_px: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw the masked pixels of a crop: (h, w) bool."""
    rows, columns = simmim.grid(crop_px)
    grid = torch.zeros(rows * columns, dtype=torch.bool)
    grid[torch.randperm(rows * columns, generator=generator)[: simmim.masked(crop_px)]] = True
    pixels = grid.view(rows, columns).repeat_interleave(simmim.patch_px, 0).repeat_interleave(simmim.patch_px, 1)
    return pixels[: crop_px[0], : crop_px[1]]


class ReconstructionLoss(Objective):
    """The mean absolute error over masked pixels, between the head's prediction and the normalised grey image."""

    def of(self, network: Network, images: Tensor, labels: Tensor, precision: AbstractContextManager[object]) -> Tensor:
        """Return the loss; 0 if no pixel is masked."""
        masked = (labels == MASKED)[:, None]
        with precision:
            predicted = network.reconstruct(images, masked)
        error = (predicted.float() - target_of(network, images)).abs() * masked
        loss: Tensor = error.sum() / masked.sum().clamp(min=1)
        return loss


def target_of(network: Network, images: Tensor) -> Tensor:
    """Return what is predicted for images (B, 1, H, W) in 0..1: the encoder's normalised input, the mean of its three channels."""
    return network.normalised(images).mean(1, keepdim=True)


def constant_loss(network: Network, batches: Dataset[Batch], count: int) -> float | None:
    """Return the loss of the best constant prediction over items 0..count-1 of `batches`; None if no pixel is masked."""
    targets = []
    for images, labels in (batches[i] for i in range(count)):
        values = target_of(network, images.to(network.mean.device).float() / 255)
        targets.append(values[:, 0][(labels == MASKED).to(values.device)].cpu())
    if not sum(map(len, targets)):
        return None
    best = torch.cat(targets).median()
    return sum(float((values - best).abs().sum()) / max(1, len(values)) for values in targets) / count


def masked_images(images: Sequence[PoolImage], simmim: SimMIM, protocol: Protocol, cache: Path) -> Lesson:
    """Return the lesson of reconstructing masked squares of these images. cache: as in `usable`.

    Raises:
        FileChangedError: a file is gone. PoolError: no image can be used.
    """
    good, largest_px = usable(images, cache)
    whole = PoolImages(good, largest_px, protocol.image_px)
    train, held_out = (Part(whole, picks) for picks in split([image.sha256 for image in good]))
    # crops are not drawn again for their classes, of which there is one
    augment = protocol.augment.model_copy(update={"most_of_one_class": 1.0})
    cut = protocol.model_copy(update={"augment": augment})

    def batches(part: Part, seed: int, steps: int) -> MaskedBatches:
        return MaskedBatches(part.batches(cut, 1, seed, steps), simmim, seed)

    def fit_heads(network: Network) -> None:
        network.decoder, network.auxiliary = pixel_head(network), None

    def measured(network: Network, probe: Dataset[Batch], count: int) -> dict[str, float | None]:
        constant = constant_loss(network, probe, count)
        return {"heldout_loss_constant": constant, "heldout_miou": None, "heldout_miou_constant": None}

    return Lesson(
        name="images",
        content_hash=images_hash(good),
        images=len(train),
        held_out=len(held_out),
        classes=ANY_CLASSES,
        batches=partial(batches, train),
        probe=partial(batches, held_out),
        loss=ReconstructionLoss(),
        fit_heads=fit_heads,
        measured=measured,
    )
