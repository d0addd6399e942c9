"""The images of a corpus with their label maps, or with those of a control, for training."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.plan.units import Learned
from bench.spec import Protocol
from bench.spec.parts import Size
from bench.train.batches import Batches, Decoded, fitted, resized_label
from bench.train.needs import NeedsLostError
from pretrain_sources.corpus import Corpus, CorpusImage, deranged, random_ranks
from pretrain_sources.file_state import FileChangedError, read_unchanged
from pretrain_sources.image_files import IGNORE, decode_label, decode_thermal

KEPT_BYTES = 2**29  # cache of decoded images and labels


class DecodedImages(Sequence[Decoded]):
    """Images that are decoded on access. The last half gigabyte is cached."""

    def __init__(self, count: int, largest_px: int) -> None:
        """count: number of images. largest_px: pixels of the largest one."""
        self._count, self._largest_px = count, largest_px
        self._keep()

    def _keep(self) -> None:
        room = KEPT_BYTES // (2 * self._largest_px)  # a byte for a pixel of the image, one for its label
        self._decoded = functools.lru_cache(maxsize=max(1, room))(self._decode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_decoded"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._keep()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:  # noqa: ANN401 - a slice gives a list, as Sequence has it
        return [self[j] for j in range(*i.indices(len(self)))] if isinstance(i, slice) else self._decoded(int(i))

    def class_px(self, i: int) -> NDArray[np.int64]:
        """Return (K,) label pixels of each class in item i, without ignore."""
        raise NotImplementedError

    def _decode(self, i: int) -> Decoded:
        raise NotImplementedError


class CorpusImages(DecodedImages):
    """The images of a corpus with their label maps, or with those of a control."""

    def __init__(self, corpus: Corpus, learned: Learned, image_px: Size | None, manifest: Path | None = None) -> None:
        """manifest: of a corpus made by a unit; it is deleted if a label map is damaged, so that the corpus is made again."""
        super().__init__(len(corpus.images), max(sum(image.class_px) for image in corpus.images))
        self._images, self._classes, self._size = corpus.images, corpus.num_classes, image_px
        control = learned.control
        kind, seed = (control.kind, control.seed) if control else (None, 0)
        n = len(corpus.images)
        self._owner = deranged(n, seed) if kind == "shuffled" else np.arange(n)  # whose label map an image gets
        self._random_seed = seed if kind == "random-rank" else None
        self._manifest = manifest

    def class_px(self, i: int) -> NDArray[np.int64]:
        """Return (K,) label pixels of each class in item i, without ignore."""
        owner = self._images[self._owner[i]]
        pixels = np.zeros(self._classes, np.int64)
        np.add.at(pixels, self._relabel(owner)[: self._classes], owner.class_px[:-1])
        return pixels

    def _relabel(self, owner: CorpusImage) -> NDArray[np.uint8]:
        return np.arange(256, dtype=np.uint8) if self._random_seed is None else random_ranks(owner, self._random_seed)

    def _decode(self, i: int) -> Decoded:
        member, owner = self._images[i], self._images[self._owner[i]]
        image = decode_thermal(read_unchanged(member.image, member.sha256))
        stored = decode_label(self._label(owner))
        counts = np.bincount(stored.ravel(), minlength=256)
        if (*counts[: self._classes].tolist(), int(counts[IGNORE])) != owner.class_px:
            raise FileChangedError(f"{owner.label} does not match its corpus manifest; make the corpus again")
        label = self._relabel(owner)[stored]
        if label.shape != image.shape and owner is member:
            raise FileChangedError(f"{owner.label} and {member.image} differ in size; make the corpus again")
        if label.shape != image.shape:  # shuffled, from an image of another size
            label = resized_label(label, (image.shape[0], image.shape[1]))
        return Decoded(member.id, member.group, *fitted(image, label, self._size))

    def _label(self, owner: CorpusImage) -> bytes:
        try:
            return read_unchanged(owner.label, owner.label_sha256)
        except (OSError, FileChangedError) as error:
            if self._manifest is None:
                raise
            self._manifest.unlink(missing_ok=True)
            raise NeedsLostError(
                f"{owner.label} is missing or changed: run the same command again to make the corpus again"
            ) from error


class Part(Sequence[Decoded]):
    """A subset of the images."""

    def __init__(self, whole: DecodedImages, picks: Sequence[int]) -> None:
        self._whole, self._picks = whole, picks
        self.class_px = [whole.class_px(i) for i in picks]

    def __len__(self) -> int:
        return len(self._picks)

    def __getitem__(self, i: Any) -> Any:  # noqa: ANN401
        return [self[j] for j in range(*i.indices(len(self)))] if isinstance(i, slice) else self._whole[self._picks[i]]

    def batches(self, protocol: Protocol, num_classes: int, seed: int, steps: int) -> Batches:
        """Make batches of crops, as on the target."""
        present = [set(np.flatnonzero(pixels).tolist()) for pixels in self.class_px]
        return Batches(self, protocol, num_classes, seed, steps, present)
