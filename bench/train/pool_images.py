"""The images of a pool without label maps, for training."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.spec.parts import Size
from bench.train.batches import Decoded, fitted
from bench.train.corpus_images import DecodedImages
from pretrain_sources.file_state import FactCache, FileChangedError, read_unchanged, stamped
from pretrain_sources.image_files import ImageError, decode_thermal
from pretrain_sources.pool import PoolError, PoolImage
from safe_io.files import read_regular

CACHED = "pool images 1"  # raised when files are examined in another way
SHOWN = 3  # reasons in a message


class PoolImages(DecodedImages):
    """Images with label maps of a single class, which covers them: what a crop has beyond their edge is ignored."""

    def __init__(self, images: Sequence[PoolImage], largest_px: int, image_px: Size | None) -> None:
        super().__init__(len(images), largest_px)
        self._images, self._size = images, image_px

    def class_px(self, i: int) -> NDArray[np.int64]:
        """Return (1,), one pixel: how many there are affects nothing."""
        return np.ones(1, np.int64)

    def _decode(self, i: int) -> Decoded:
        member = self._images[i]
        try:
            image = decode_thermal(read_unchanged(member.path, member.sha256))
        except OSError as error:
            raise _gone(member, error) from error
        return Decoded(member.id, member.group, *fitted(image, np.zeros_like(image), self._size))


def usable(images: Sequence[PoolImage], cache: Path) -> tuple[list[PoolImage], int]:
    """Decode every image once; return (those that can be used, pixels of the largest). A corpus leaves out the same ones.

    cache: file for what is known of unchanged files.

    Raises:
        FileChangedError: a file is gone. PoolError: no image can be used.
    """
    known = FactCache[str | int](
        cache, CACHED, decode=lambda row: row, encode=lambda fact: fact, is_sound=_is_size, is_shared=True
    )
    facts = known.look_up({_key(image): image for image in images}, _examined)
    sizes = {image: fact for image in images if isinstance(fact := facts[_key(image)], int)}
    if not sizes:
        counts = Counter(map(str, facts.values())).most_common(SHOWN)
        why = "; ".join(f"{count} {text}" for text, count in counts)
        raise PoolError(f"none of {len(images)} images of the pool can be used: {why}")
    return list(sizes), max(sizes.values())


def _is_size(fact: str | int) -> bool:
    return isinstance(fact, int)


def _key(image: PoolImage) -> str:
    try:
        return stamped(image.path)
    except OSError as error:
        raise _gone(image, error) from error


def _examined(image: PoolImage) -> int | str:
    """Return the number of pixels of an image, or why it cannot be used."""
    try:
        return int(decode_thermal(read_regular(image.path)).size)
    except ImageError as error:
        return str(error)
    except OSError as error:
        raise _gone(image, error) from error


def _gone(image: PoolImage, error: OSError) -> FileChangedError:
    return FileChangedError(f"{image.path} cannot be read ({error.strerror}); run the same command again")
