from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

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
def test_invalid_labels_and_shapes_are_refused(metric) -> None:
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


def test_predictions_on_ignored_pixels_do_not_matter() -> None:
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
    assert len(expected) >= 200
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def plain(pred: np.ndarray, true: np.ndarray, num_classes: int, ignore: int) -> np.ndarray:
    """Compute the paper's seven steps on whole images; E, Et, EA, M, B and Ew are its names."""
    values = np.full(num_classes, np.nan)
    for k in np.unique(true[true != ignore]):
        G, D = true == k, (pred == k) & (true != ignore)
        dist, index = ndimage.distance_transform_edt(~G, return_indices=True)
        E = (G != D).astype(float)
        EA = ndimage.gaussian_filter(np.where(G, E, E[index[0], index[1]]), 5.0, radius=3, mode="constant")
        M = np.where(G & (EA < E), EA, E)
        Ew = M * np.where(G, 1.0, 2.0 - np.exp(np.log(0.5) / 5 * dist))
        TP = G.sum() - Ew[G].sum()
        R, P = 1 - Ew[G].mean(), TP / (TP + Ew[~G].sum() + np.spacing(1))
        values[k] = 2 * R * P / (R + P + np.spacing(1))
    return values


@settings(deadline=None, max_examples=300)
@given(maps)
def test_the_fast_sums_match_the_paper(pair: tuple[np.ndarray, np.ndarray]) -> None:
    pred, true = pair
    np.testing.assert_allclose(weighted_fmeasure(pred, true, 4), plain(pred, true, 4, 255), atol=1e-12)
    np.testing.assert_allclose(weighted_fmeasure(pred, true, 4, ignore=3), plain(pred, true, 4, 3), atol=1e-12)


@pytest.mark.parametrize("scale_px", [0.7, 3, 15])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_the_fast_sums_match_on_large_maps(scale_px: float, dtype: type) -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([ndimage.gaussian_filter(rng.normal(size=(150, 260)), scale_px) for _ in range(12)])
    true, pred = fields[:6].argmax(0).astype(dtype), fields[3:9].argmax(0).astype(dtype)
    true[:20, :30] = 255
    np.testing.assert_allclose(weighted_fmeasure(pred, true, 6), plain(pred, true, 6, 255), atol=1e-12)


def test_hundreds_of_classes_and_any_ignore_value_work() -> None:
    true = np.repeat(np.arange(-1, 299), 4).reshape(30, 40)
    pred = np.roll(true, 1, 1)
    pred[pred == -1] = 7
    values = weighted_fmeasure(pred, true, 300, ignore=-1)
    present = np.unique(true[true >= 0])
    assert np.flatnonzero(~np.isnan(values)).tolist() == present.tolist()
    np.testing.assert_allclose(values, plain(pred, true, 300, -1), atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(maps)
def test_weighted_f_is_in_0_1_and_1_only_for_the_truth(pair: tuple[np.ndarray, np.ndarray]) -> None:
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
    grown[2:18, 2:18] = 1  # all hits, and false positives
    values = [weighted_fmeasure(grown, true, 2, beta_squared=b2)[1] for b2 in (0.3, 1.0, 4.0)]
    assert values == sorted(values)
    assert values[0] < values[2]
