"""The teacher without weights, on synthetic images."""

from pathlib import Path

import numpy as np
import pytest

from pretrain_sources.recipe import FelzenszwalbTeacher
from pretrain_sources.teachers import Masks, felzenszwalb, open_teacher


def ask(image: np.ndarray, **settings) -> Masks:
    return open_teacher(FelzenszwalbTeacher(**settings), Path("no weights"))(image)


def square(side: int = 96, low: int = 30, high: int = 70, ground: int = 40, level: int = 200) -> np.ndarray:
    image = np.full((side, side), ground, np.uint8)
    image[low:high, low:high] = level
    return image


def test_bright_square_is_found_whole():
    image = square()
    found = ask(image, sigma=0.0)
    assert len(found.masks) == 2
    assert (found.masks[1] == (image == 200)).all()
    assert found.predicted_iou[1] == pytest.approx(1600 / (1600 + 6 * 160))  # no spread inside, 160 edges
    assert found.predicted_iou[0] == pytest.approx(7616 / (7616 + 6 * 160))
    assert found.prompts == ((),) * len(found.masks)


def test_nested_squares_are_separated():
    image = square(128, 20, 108, level=120)
    image[50:80, 50:80] = 240
    found = ask(image, sigma=0.0)
    for level in (40, 120, 240):
        assert any((mask == (image == level)).all() for mask in found.masks)


def test_noisy_scene_has_ordered_values_in_the_unit_interval():
    rng = np.random.default_rng(0)
    image = np.clip(square(128, 40, 90) + rng.normal(0, 12, (128, 128)), 0, 255).astype(np.uint8)
    found = ask(image, scales=(20, 100, 400), min_size=20)
    for values in (found.predicted_iou, found.stability):
        assert values.dtype == np.float32
        assert values.min() >= 0
        assert values.max() <= 1
    assert (np.diff(found.predicted_iou) <= 0).all()
    assert found.masks.any(axis=(1, 2)).all()


def test_same_bytes_twice():
    image = np.random.default_rng(1).integers(0, 256, (60, 90), np.uint8)
    first, second = ask(image), ask(image)
    assert first.masks.tobytes() == second.masks.tobytes()
    assert first.predicted_iou.tobytes() == second.predicted_iou.tobytes()
    assert first.stability.tobytes() == second.stability.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 3), (8, 8), (40, 60)])
@pytest.mark.parametrize("scales", [(100.0,), (200.0, 800.0)])
def test_a_flat_image_is_one_segment_without_contrast(shape, scales):
    found = ask(np.full(shape, 77, np.uint8), scales=scales)
    assert found.masks.shape == (1, *shape)
    assert found.predicted_iou.tolist() == [0]
    assert found.stability.tolist() == [1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (8, 8)])
def test_tiny_images(shape):
    found = ask(np.random.default_rng(2).integers(0, 256, shape, np.uint8), min_size=1, scales=(1.0, 5.0))
    assert found.masks.any(axis=0).all()


def test_duplicates_are_dropped_and_equal_segments_are_stable():
    image = square()
    once = ask(image, scales=(200.0, 800.0), sigma=0.0)
    assert (once.masks.sum(axis=0) == 1).all()
    assert (once.stability == 1).all()
    kept = ask(image, scales=(200.0, 800.0), sigma=0.0, nms_thresh=1.0)
    assert len(kept.masks) == 2 * len(once.masks)
    assert ask(image, scales=(800.0, 200.0, 200.0), sigma=0.0).masks.tobytes() == once.masks.tobytes()


def test_the_better_of_two_overlapping_segments_is_kept():
    maps = np.array([[[0, 0, 0, 1]], [[2, 2, 2, 2]]])  # 0 and 2 share 3 of 4 pixels
    assert felzenszwalb._suppress(maps, np.array([2, 0, 1]), 0.7).tolist() == [2, 1]
    assert felzenszwalb._suppress(maps, np.array([1, 0, 2]), 0.7).tolist() == [1, 0]
    assert felzenszwalb._suppress(maps, np.array([1, 0, 2]), 0.75).tolist() == [1, 0, 2]


def test_a_dropped_segment_suppresses_no_other():
    maps = np.zeros((3, 1, 10), np.int64)
    maps[0, 0] = [0] * 6 + [3] * 4
    maps[1, 0] = [1] * 8 + [4] * 2
    maps[2, 0] = 2
    # 0 drops 1 (IoU 0.75), so 1 does not drop 2 (IoU 0.8)
    assert felzenszwalb._suppress(maps, np.array([0, 1, 2, 3, 4]), 0.7).tolist() == [0, 2, 3, 4]


def test_stability_is_the_best_overlap_with_the_next_scale():
    maps = np.array([[[0, 0, 0, 1]], [[2, 2, 2, 2]]])
    assert felzenszwalb._stability(maps).tolist() == [0.75, 0.25, 0.75]


def test_a_single_scale_is_compared_with_its_double():
    image = np.random.default_rng(3).integers(0, 256, (64, 64), np.uint8)
    both = felzenszwalb._segment(image, [50, 100], FelzenszwalbTeacher())
    alone = ask(image, scales=(50.0,))
    assert len(alone.masks) == both[0].max() + 1
    assert sorted(alone.stability) == pytest.approx(sorted(felzenszwalb._stability(both)[: len(alone.masks)]))


def test_scores_of_a_plain_square():
    segments = np.zeros((1, 40, 40), np.int64)
    segments[0, 10:30, 10:30] = 1
    image = np.where(segments[0] == 1, 200, 100).astype(np.uint8)
    image[:5] = 150  # the ground's spread; out of the square's ring
    expected = 400 / (400 + 6 * 80)  # no spread in the square
    assert felzenszwalb._scores(image, segments)[1] == pytest.approx(expected)
    image[:, 35:] += 10
    assert felzenszwalb._scores(image, segments)[1] == pytest.approx(expected)
    image[10:30, 10:20] = 180
    assert felzenszwalb._scores(image, segments)[1] == pytest.approx(expected * 90 / (90 + 10))


def test_the_librarys_scale_is_that_of_the_paper_for_images_in_0_to_255():
    """Two flat halves merge when their difference is at most k / area: 100 grey levels, 32 pixels, k = 3200."""
    image = np.repeat(np.array([[100, 200]], np.uint8), 4, axis=1).repeat(8, axis=0)
    settings = FelzenszwalbTeacher(sigma=0, min_size=1)
    assert felzenszwalb._segment(image, [3100], settings).max() == 1
    assert felzenszwalb._segment(image, [3300], settings).max() == 0
