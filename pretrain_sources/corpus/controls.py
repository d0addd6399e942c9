"""Controls of a corpus: its label maps over other images, or with other ranks."""

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.corpus.manifest import CorpusError
from pretrain_sources.corpus.tables import CorpusImage
from pretrain_sources.hashing import derive_seed


def deranged(n: int, seed: int) -> NDArray[np.int64]:
    """(n,) a permutation that leaves nothing in its place, uniform among those (by rejection); a function of (n, seed).

    Raises:
        CorpusError: fewer than two things cannot be deranged.
    """
    if n < 2:
        raise CorpusError("labels of fewer than two images cannot be shuffled between images")
    rng = np.random.default_rng(derive_seed("derangement", n, seed))
    while True:  # about e tries
        order = rng.permutation(n)
        if not (order == np.arange(n)).any():
            return np.asarray(order, dtype=np.int64)


def random_ranks(image: CorpusImage, seed: int) -> NDArray[np.uint8]:
    """(256,) new value of each label: the ranks that occur in one label map permuted at random, 0 and ignore as they were."""
    rng = np.random.default_rng(derive_seed("random ranks", seed, image.sha256))
    ranks = 1 + np.flatnonzero(image.class_px[1:-1])
    table = np.arange(256, dtype=np.uint8)
    table[ranks] = rng.permutation(ranks)
    return table
