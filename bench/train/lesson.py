"""What an encoder learns from before it meets the target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset

from backbones.network import Network
from bench.train.loop import Batch
from bench.train.loss import Objective
from pretrain_sources.hashing import fingerprint

HELD_OUT = (10, 64)  # every tenth image, at most 64


@dataclass(frozen=True)
class Lesson:
    """The images of a pretraining, and what is learned on them.

    Attributes:
        name: corpus, or images without labels. content_hash: of the images, and of their label maps, if they have any.
        images, held_out: numbers of images.
        classes: of the network that is built. fit_heads: gives it the heads that learn with its encoder, with random weights from
            torch's global generator.
        batches: makes the batches of crops of (seed, steps). probe: those of held-out images.
        measured: what is recorded of (a network that has learned, batches of the probe, their number), besides the loss.
    """

    name: str
    content_hash: str
    images: int
    held_out: int
    classes: int
    batches: Callable[[int, int], Dataset[Batch]]
    probe: Callable[[int, int], Dataset[Batch]]
    loss: Objective
    fit_heads: Callable[[Network], None]
    measured: Callable[[Network, Dataset[Batch], int], Mapping[str, float | None]]


def split(sha256s: Sequence[str]) -> tuple[list[int], list[int]]:
    """Split images into (train, held out): a tenth in the order of a hash, at most 64, none of fewer than ten.

    Sources that learn from the same images hold out the same ones.
    """
    order = sorted(range(len(sha256s)), key=lambda i: fingerprint(["held out", sha256s[i]]))
    n = held_out_of(len(order))
    return sorted(order[n:]), sorted(order[:n])


def held_out_of(images: int) -> int:
    """Return how many of so many images are held out."""
    return min(images // HELD_OUT[0], HELD_OUT[1])
