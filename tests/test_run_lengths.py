import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_sources.run_lengths import from_run_lengths, run_lengths


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_run_lengths_come_back(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = run_lengths(mask)
    assert np.array_equal(from_run_lengths(runs, mask.shape), mask)
    assert int(runs[1::2].sum()) == mask.sum()


def test_run_lengths_are_in_cocos_order() -> None:
    from segment_anything.utils.amg import rle_to_mask

    mask = np.random.default_rng(0).random((7, 5)) < 0.5
    theirs = rle_to_mask({"size": list(mask.shape), "counts": run_lengths(mask).tolist()})
    assert np.array_equal(theirs, mask)


def test_run_lengths_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="run lengths of 6 pixels for a mask of 2 x 2"):
        from_run_lengths(run_lengths(np.zeros((1, 6), bool)), (2, 2))
