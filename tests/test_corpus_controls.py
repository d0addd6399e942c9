from pathlib import Path

import numpy as np
import pytest

from pretrain_sources.corpus import (
    CorpusError,
    CorpusImage,
    deranged,
    random_ranks,
)


def test_a_derangement_leaves_nothing_in_its_place() -> None:
    for n in (2, 3, 10, 500):
        order = deranged(n, seed=0)
        assert sorted(order) == list(range(n))
        assert (order != np.arange(n)).all()
        assert np.array_equal(order, deranged(n, seed=0))
    assert not np.array_equal(deranged(500, 0), deranged(500, 1))
    with pytest.raises(CorpusError, match="fewer than two"):
        deranged(1, 0)


def test_random_ranks_keep_everything_but_the_ranks() -> None:
    def of(sha256: str, seed: int = 0) -> list[int]:
        image = CorpusImage("i", Path(), Path(), "g", sha256, "", (9, 5, 0, 7, 1, 0))  # ranks 1, 3 and 4 occur
        return random_ranks(image, seed).tolist()

    assert of("a")[0] == 0
    assert of("a")[255] == 255
    assert of("a")[2] == 2
    assert sorted(of("a")[k] for k in (1, 3, 4)) == [1, 3, 4]
    assert of("a") == of("a")
    assert len({tuple(of(str(i))) for i in range(50)}) == 6
    assert len({tuple(of("a", seed)) for seed in range(50)}) == 6
