"""Controls of a corpus: label maps of other images, or with random ranks."""

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.corpus.manifest import CorpusError
from pretrain_sources.corpus.tables import CorpusImage
from pretrain_sources.hashing import derive_seed


def deranged(n: int, seed: int) -> NDArray[np.int64]:
    """Return a permutation (n,) without fixed points, uniform among those (by rejection), determined by (n, seed).

    Raises:
        CorpusError: n is below two.
    """
    if n < 2:
        raise CorpusError("cannot shuffle labels between fewer than two images; use a larger pool")
    rng = np.random.default_rng(derive_seed("derangement", n, seed))
    while True:  # about e tries
        order = rng.permutation(n)
        if not (order == np.arange(n)).any():
            return np.asarray(order, dtype=np.int64)


def random_ranks(image: CorpusImage, seed: int) -> NDArray[np.uint8]:
    """Return the new value of each label, (256,): the ranks in one label map randomly permuted, 0 and ignore unchanged."""
    rng = np.random.default_rng(derive_seed("random ranks", seed, image.sha256))
    ranks = 1 + np.flatnonzero(image.class_px[1:-1])
    table = np.arange(256, dtype=np.uint8)
    table[ranks] = rng.permutation(ranks)
    return table
