from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.score import confusion_matrix, weighted_fmeasure

maps = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=st.integers(0, 3))] * 2)
)


def test_confusion_by_hand() -> None:
    true = np.array([[0, 0, 1], [1, 2, 255]])
    pred = np.array([[0, 1, 1], [1, 0, 2]])
    assert confusion_matrix(pred, true, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


@given(maps)
def test_confusion_counts_every_valid_pixel_once(pair: tuple[np.ndarray, np.ndarray]) -> None:
    pred, true = pair
    confusion = confusion_matrix(pred, true, 4, ignore=3)
    assert confusion.sum() == (true != 3).sum()
    assert confusion.sum(1).tolist() == [(true == k).sum() if k < 3 else 0 for k in range(4)]


@pytest.mark.parametrize("metric", [confusion_matrix, weighted_fmeasure])
def test_labels_and_shapes_that_cannot_be_are_refused(metric) -> None:
    good = np.zeros((4, 5), dtype=np.uint8)
    with pytest.raises(ValueError, match="true holds label 7"):
        metric(good, good + 7, 3)
    with pytest.raises(ValueError, match="pred holds label 3"):
        metric(good + 3, good, 3)
    with pytest.raises(ValueError, match=r"must be \(H, W\)"):
        metric(good, good.T, 3)
    with pytest.raises(ValueError, match="pred holds label -2"):
        metric(good.astype(int) + np.array([0, 0, -2, 0, 0]), good, 3)
    for wrong in (good.astype(float), good.tolist()):
        with pytest.raises(ValueError, match="must be a numpy array of integers"):
            metric(wrong, good, 3)


def test_what_is_predicted_on_ignored_pixels_does_not_matter() -> None:
    true = np.array([[0, 1, 255, 255]] * 4, dtype=np.uint8)
    a, b = true.copy(), true.copy()
    a[true == 255], b[true == 255] = 0, 200
    np.testing.assert_array_equal(confusion_matrix(a, true, 2), confusion_matrix(b, true, 2))
    np.testing.assert_array_equal(weighted_fmeasure(a, true, 2), weighted_fmeasure(b, true, 2))


def test_weighted_f_agrees_with_pysodmetrics() -> None:
    """238 masks: small, large, at the border, full, one pixel, ragged, with ignore. See make_weighted_f_reference.py."""
    with np.load(Path(__file__).with_name("weighted_f_reference.npz")) as stored:
        expected = stored["values"]
        found = []
        for i in range(len(expected)):
            shape = tuple(stored[f"shape_{i}"])
            truth, ignore, pred = np.unpackbits(stored[f"bits_{i}"], count=3 * shape[0] * shape[1]).reshape(3, *shape)
            true_map = np.where(ignore, 255, truth).astype(np.uint8)
            found.append(weighted_fmeasure(pred, true_map, 2)[1])
    difference = np.abs(np.array(found) - expected)
    assert len(expected) >= 200
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-4


@settings(deadline=None, max_examples=50)
@given(maps)
def test_weighted_f_is_a_fraction_and_one_only_for_the_truth(pair: tuple[np.ndarray, np.ndarray]) -> None:
    pred, true = pair
    values = weighted_fmeasure(pred, true, 4)
    present = [bool((true == k).any()) for k in range(4)]
    assert (~np.isnan(values)).tolist() == present
    assert np.nanmin(values) >= 0
    assert np.nanmax(values) <= 1
    np.testing.assert_allclose(weighted_fmeasure(true, true, 4)[present], 1)


def test_beta_squared_weighs_recall() -> None:
    true = np.zeros((20, 20), dtype=np.uint8)
    true[5:15, 5:15] = 1
    grown = np.zeros_like(true)
    grown[2:18, 2:18] = 1  # all found, and more
    values = [weighted_fmeasure(grown, true, 2, beta_squared=b2)[1] for b2 in (0.3, 1.0, 4.0)]
    assert values == sorted(values)
    assert values[0] < values[2]
