"""Decoded frames, training batches, and the only function that opens a split.

A batch is a pure function of (seed, step): training can resume, and all compared sources see the same crops.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from bench.spec import Protocol
from bench.spec.parts import Augment, Loss, Size
from bench.targets import Target
from bench.targets.frames import Frame, decode_image, decode_mask
from pretrain_sources.hashing import derive_seed, fingerprint
from pretrain_sources.image_files import IGNORE, Pixels
from pretrain_sources.pool import evenly

REDRAWN = 10  # times at most, a crop that one class fills


@dataclass(frozen=True)
class Decoded:
    """A frame's pixels: image (H, W) as the network gets it, label as stored."""

    id: str
    group: str
    image: Pixels
    label: Pixels


def choose(target: Target, split: str, protocol: Protocol, train_frac: float = 1.0) -> tuple[Frame, ...]:
    """Select the frames of a split by protocol and train fraction. Fractions are nested: 10 % is a subset of 30 %."""
    frames = target.splits[split]
    if split == "train" and protocol.select_on == "test":
        frames += target.splits["val"]  # publications that select on test train on all the rest
    frames = evenly(frames, protocol.max_frames)
    if split == "train" and train_frac < 1:
        order = sorted(frames, key=lambda frame: fingerprint([protocol.seed, "train fraction", frame.id]))
        chosen = set(order[: max(1, round(train_frac * len(frames)))])
        frames = tuple(frame for frame in frames if frame in chosen)
    return frames


def open_split(
    target: Target, split: str, protocol: Protocol, train_frac: float = 1.0, only: Collection[str] | None = None
) -> list[Decoded]:
    """Decode the frames of a split; `only`: those with these ids.

    Images are resized to the protocol's size, and so are the labels of train; other labels keep their size.
    """
    frames = [frame for frame in choose(target, split, protocol, train_frac) if only is None or frame.id in only]
    return [_decode(frame, protocol.image_px, split == "train", target) for frame in frames]


def _decode(frame: Frame, size: Size | None, resize_label: bool, target: Target) -> Decoded:
    image = decode_image(frame.image.read_bytes(), target.coding)
    label = decode_mask(frame.label.read_bytes(), target.coding)
    label = label if target.relabel is None else target.relabel[label]
    return Decoded(frame.id, frame.group, *fitted(image, label, size, resize_label))


def fitted(image: Pixels, label: Pixels, size: Size | None, resize_label: bool = True) -> tuple[Pixels, Pixels]:
    """Resize (image, label) to a size (None: unchanged); labels by nearest neighbour."""
    if size is not None and image.shape != size:
        image = F.resize(tv_tensors.Image(torch.from_numpy(image.copy())), list(size), antialias=True)[0].numpy()
        label = resized_label(label, size) if resize_label else label
    return image, label


def resized_label(label: Pixels, size: Size) -> Pixels:
    """Resize a label map by nearest neighbour."""
    resized: Pixels = F.resize(tv_tensors.Mask(torch.from_numpy(label.copy())), list(size)).numpy()
    return resized


def class_pixels(target: Target, frames: Sequence[Frame]) -> NDArray[np.int64]:
    """Return (K,) label pixels of each class over these frames, without ignore."""
    rows = np.array([target.facts[frame.id].pixels[:-1] for frame in frames], dtype=np.int64)
    return np.asarray(rows.sum(0))


def class_weights(pixels: NDArray[np.int64], loss: Loss) -> NDArray[np.float64]:
    """Return (K,) weights for cross-entropy: (largest class / class) ^ power, at most the cap; absent classes get the cap."""
    rarity = pixels.max() / np.maximum(pixels, 1)
    return np.asarray(np.minimum(rarity**loss.class_weight_power, loss.class_weight_cap), dtype=np.float64)


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Item i is the batch of step i: images (B, 1, h, w) uint8 and labels (B, h, w) uint8, at the protocol's crop size."""

    def __init__(
        self,
        frames: Sequence[Decoded],
        protocol: Protocol,
        num_classes: int,
        seed: int,
        steps: int,
        classes: Sequence[Collection[int]] | None = None,
    ) -> None:
        """`classes`: the classes in each frame's label; None: computed, which decodes every frame."""
        self._frames = frames
        self._size = protocol.crop_px
        self._batch = protocol.batch
        self._augment = protocol.augment
        self._seed = seed
        self._steps = steps
        self._distorts = protocol.augment.photometric_distortion
        self._jitter = v2.Compose(
            [
                v2.RandomHorizontalFlip(protocol.augment.hflip),
                v2.RandomVerticalFlip(protocol.augment.vflip),
                v2.ColorJitter(brightness=protocol.augment.brightness, contrast=protocol.augment.contrast),
            ]
        )
        present = classes or [np.unique(frame.label).tolist() for frame in frames]
        self._frames_with = {
            k: members for k in range(1, num_classes) if (members := [i for i, has in enumerate(present) if k in has])
        }

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        if not 0 <= step < self._steps:
            raise IndexError(step)
        torch.manual_seed(derive_seed(self._seed, "batch", step))
        crops = [self._crop() for _ in range(self._batch)]
        return torch.stack([image for image, _ in crops]), torch.stack([label for _, label in crops])

    def _crop(self) -> tuple[Tensor, Tensor]:
        frame, centre = self._aim()
        window = _window(self._augment, self._size)
        corner = _corner(frame.label.shape, window, centre)
        for _ in range(REDRAWN if self._augment.most_of_one_class < 1 else 0):
            if _is_mixed(_cut(frame.label, corner, window, fill=IGNORE), self._augment.most_of_one_class):
                break
            corner = _corner(frame.label.shape, window, centre)
        image = tv_tensors.Image(torch.from_numpy(_cut(frame.image, corner, window, fill=0))[None])
        label = tv_tensors.Mask(torch.from_numpy(_cut(frame.label, corner, window, fill=IGNORE)))
        image, label = F.resize(image, list(self._size), antialias=True), F.resize(label, list(self._size))
        jittered: tuple[Tensor, Tensor] = self._jitter(image, label)
        image, label = (each.as_subclass(Tensor) for each in jittered)
        return _distorted(image) if self._distorts else image, label

    def _aim(self) -> tuple[Decoded, tuple[int, int] | None]:
        """Draw (frame, pixel to aim at or None): a share of the crops aims at a pixel of a uniformly drawn foreground class."""
        if self._frames_with and float(torch.rand(())) < self._augment.rare_crop_share:
            k = sorted(self._frames_with)[_draw(len(self._frames_with))]
            frame = self._frames[self._frames_with[k][_draw(len(self._frames_with[k]))]]
            spots = np.flatnonzero(frame.label == k)
            if not len(spots):  # lost in resizing
                return frame, None
            y, x = divmod(int(spots[_draw(len(spots))]), frame.label.shape[1])
            return frame, (y, x)
        return self._frames[_draw(len(self._frames))], None


def _draw(n: int) -> int:
    return int(torch.randint(n, ()))


def _window(augment: Augment, size: Size) -> Size:
    """Draw the height and width, in frame pixels, of a crop that `scale` enlarges to `size`."""
    low, high = augment.scale
    if augment.scale_draw == "uniform":
        scale = low + (high - low) * float(torch.rand(()))
    else:
        scale = math.exp(math.log(low) + (math.log(high) - math.log(low)) * float(torch.rand(())))
    return max(1, round(size[0] / scale)), max(1, round(size[1] / scale))


def _corner(shape: tuple[int, ...], window: Size, centre: tuple[int, int] | None) -> tuple[int, int]:
    """Draw the top and left of a window inside the frame (0 where the window is larger), around `centre` if given."""
    room = [max(0, size - cut) for size, cut in zip(shape, window, strict=True)]
    if centre is None:
        return _draw(room[0] + 1), _draw(room[1] + 1)
    top, left = (c - _draw(cut) for c, cut in zip(centre, window, strict=True))
    return min(max(top, 0), room[0]), min(max(left, 0), room[1])


def _is_mixed(label: Pixels, most: float) -> bool:
    """Return whether a crop has two classes at least and none that covers `most` of it, ignored pixels apart."""
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum())


def _distorted(image: Tensor) -> Tensor:
    """Change brightness and contrast of a grey uint8 image, each with probability 1/2."""
    added, factor = (float(torch.empty(()).uniform_(*limits)) for limits in ((-32, 32), (0.5, 1.5)))
    for times, plus in ((1.0, added), (factor, 0.0)):
        if float(torch.rand(())) < 0.5:
            image = (image.float() * times + plus).clamp(0, 255).to(torch.uint8)
    return image


def _cut(pixels: Pixels, corner: tuple[int, int], window: Size, fill: int) -> Pixels:
    """Cut a window (h, w) out of (H, W) pixels, padded with `fill`."""
    top, left = corner
    inside = pixels[top : top + window[0], left : left + window[1]]
    cut = np.full(window, fill, dtype=np.uint8)
    cut[: inside.shape[0], : inside.shape[1]] = inside
    return cut
