import numpy as np
import pytest
from examples import evidence
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from results import metrics
from results.evidence import Evidence

confusions = arrays(np.int64, st.integers(2, 6).map(lambda k: (k, k)), elements=st.integers(0, 1000)).filter(
    lambda c: c.sum() > 0
)


def test_iou_by_hand() -> None:
    # class 0: 8 hit, 2 missed, 1 false -> 8/11; class 1: 3 hit, 1 missed, 2 false -> 3/6
    confusion = np.array([[8, 2], [1, 3]])
    assert metrics.class_iou(confusion) == pytest.approx([8 / 11, 3 / 6])
    assert metrics.miou(confusion) == pytest.approx((8 / 11 + 3 / 6) / 2)
    assert metrics.miou(confusion, background=False) == pytest.approx(0.5)


def test_precision_recall_and_area_by_hand() -> None:
    # class 0: 8 of 9 predicted, 8 of 10 true; class 1: 3 of 5 predicted, 3 of 4 true; class 2 is neither true nor predicted
    confusion = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert metrics.class_precision(confusion) == pytest.approx([8 / 9, 3 / 5, np.nan], nan_ok=True)
    assert metrics.class_recall(confusion) == pytest.approx([8 / 10, 3 / 4, np.nan], nan_ok=True)
    assert metrics.class_area_ratio(confusion) == pytest.approx([9 / 10, 5 / 4, np.nan], nan_ok=True)


def test_a_class_that_is_only_predicted_has_precision_zero_and_one_that_is_only_true_has_none() -> None:
    confusion = np.array([[6, 4, 0], [0, 0, 0], [5, 0, 0]])
    assert metrics.class_precision(confusion) == pytest.approx([6 / 11, 0, np.nan], nan_ok=True)
    assert metrics.class_recall(confusion) == pytest.approx([0.6, np.nan, 0], nan_ok=True)
    assert metrics.class_area_ratio(confusion) == pytest.approx([1.1, np.nan, 0], nan_ok=True)


@given(confusions)
def test_the_area_ratio_is_recall_over_precision_and_iou_follows_from_both(confusion: np.ndarray) -> None:
    hit = np.diag(confusion) > 0
    precision, recall = metrics.class_precision(confusion)[hit], metrics.class_recall(confusion)[hit]
    assert metrics.class_area_ratio(confusion)[hit] == pytest.approx(recall / precision)
    assert metrics.class_iou(confusion)[hit] == pytest.approx(1 / (1 / precision + 1 / recall - 1))


def test_absent_class_is_excluded_but_its_false_pixels_count() -> None:
    confusion = np.array([[6, 0, 4], [0, 5, 0], [0, 0, 0]])
    assert np.isnan(metrics.class_iou(confusion)[2])
    assert metrics.miou(confusion) == pytest.approx((6 / 10 + 1) / 2)


def test_mmsegmentation_counts_a_class_that_is_only_predicted_as_zero() -> None:
    """The example in results/README.md, then mmsegmentation's own lines: intersect, union, nanmean."""
    confusion = np.array([[50, 0, 0], [0, 40, 10], [0, 0, 0]])
    assert metrics.miou(confusion) == pytest.approx(0.9)
    assert metrics.miou_mmsegmentation(confusion) == pytest.approx(0.6)
    assert np.isnan(metrics.miou_mmsegmentation(np.zeros((2, 2), int)))


@given(arrays(np.int64, (4, 4), elements=st.integers(0, 9)))
def test_both_conventions_agree_where_every_predicted_class_occurs(confusion: np.ndarray) -> None:
    intersect, predicted, truth = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    if not predicted.any():
        return
    with np.errstate(invalid="ignore"):
        expected = np.nanmean(intersect / (predicted + truth - intersect))
    found = metrics.miou_mmsegmentation(confusion)
    assert found == pytest.approx(expected)
    if not ((truth == 0) & (predicted > 0)).any():
        assert found == pytest.approx(metrics.miou(confusion))
    elif truth.any():
        assert found <= metrics.miou(confusion)


@given(confusions)
def test_constant_is_the_best_constant_prediction(confusion: np.ndarray) -> None:
    truth = confusion.sum(1)
    everywhere = [np.outer(truth, np.arange(len(truth)) == k) for k in range(len(truth))]
    best, value = metrics.constant(truth)
    assert metrics.miou(everywhere[best]) == pytest.approx(value) == max(map(metrics.miou, everywhere))
    assert np.isnan(metrics.constant(0 * truth)[1])


@given(confusions)
def test_miou_is_a_fraction_and_independent_of_class_order(confusion: np.ndarray) -> None:
    value = metrics.miou(confusion)
    assert 0 <= value <= 1
    order = np.random.default_rng(0).permutation(len(confusion))
    assert metrics.miou(confusion[np.ix_(order, order)]) == pytest.approx(value)


@given(confusions)
def test_only_a_perfect_prediction_scores_one(confusion: np.ndarray) -> None:
    assert metrics.miou(np.diag(confusion.sum(1))) == 1
    wrong = confusion.sum() - np.trace(confusion)
    assert (metrics.miou(confusion) == 1) == (wrong == 0)


def test_weighted_f_is_the_mean_over_images_that_contain_the_class() -> None:
    values = np.array([[0.5, np.nan, np.nan], [1.0, 0.2, np.nan]])
    assert metrics.class_weighted_f(values)[:2] == pytest.approx([0.75, 0.2])
    assert np.isnan(metrics.class_weighted_f(values)[2])


def test_false_presence() -> None:
    # image 0 holds class 1; images 1 and 2 do not, and it is predicted in image 2
    confusion = np.array([[[5, 0], [0, 5]], [[9, 0], [0, 0]], [[8, 1], [0, 0]]])
    assert metrics.class_false_presence(confusion)[1] == 0.5
    assert np.isnan(metrics.class_false_presence(confusion)[0])


def test_scores_use_the_sum_of_the_matrices() -> None:
    proof = evidence()
    scores = metrics.scores(proof)
    assert scores.miou == metrics.miou(proof.confusion.sum(0))
    assert scores.test_images == 4


def test_new_records_have_the_scores_of_older_ones_and_more() -> None:
    proof = evidence()
    older, newer = metrics.scores(proof), metrics.all_scores(proof)
    assert newer.model_dump().items() > older.model_dump().items()
    assert newer.model_dump().keys() - older.model_dump().keys() == {
        "class_precision",
        "class_recall",
        "class_area_ratio",
    }
    assert newer.class_recall == metrics.class_recall(proof.confusion.sum(0)).tolist()


def test_no_labelled_pixels() -> None:
    empty = Evidence(np.array(["a"]), np.array(["g"]), np.zeros((1, 2, 2), int), np.full((1, 2), np.nan))
    with pytest.raises(ValueError, match="no labelled pixels"):
        metrics.scores(empty)


def test_evidence_round_trip() -> None:
    proof = evidence()
    again = Evidence.from_bytes(proof.to_bytes())
    assert again.to_bytes() == proof.to_bytes()
    np.testing.assert_array_equal(again.confusion, proof.confusion)


def test_duplicate_image_id_is_rejected() -> None:
    proof = evidence()
    ids = np.array(["a", "b", "c", "a"])
    with pytest.raises(ValueError, match="duplicate image id"):
        Evidence(ids, proof.groups, proof.confusion, proof.weighted_f)
