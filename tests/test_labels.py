import itertools

import numpy as np
import pytest

from pretrain_sources.corpus.labels import EncodedMasks, encode_masks, make_label
from pretrain_sources.recipe import Recipe
from pretrain_sources.teachers import Masks

# three masks on a strip of six pixels: A covers 0-3, B 2-4, C 4; pixel 5 is in none. The best by each ranking:
STRIP = np.zeros((3, 1, 6), bool)
STRIP[0, 0, 0:4], STRIP[1, 0, 2:5], STRIP[2, 0, 4:5] = True, True, True
A, B, C = 0, 1, 2
ORDERS = {"predicted_iou": (B, A, C), "stability": (C, B, A), "area": (A, B, C), "area_ascending": (C, B, A)}


def strip() -> EncodedMasks:
    iou, stability = np.array([0.8, 0.9, 0.7], np.float32), np.array([0.1, 0.2, 0.3], np.float32)
    return encode_masks(Masks(STRIP, iou, stability, ((0.0, 0.0), (2.0, 0.0), (4.0, 0.0))))


def by_hand(order: tuple[int, ...], overlap: str, uncovered: str, binary: bool) -> list[int]:
    """Compute the label of each pixel from the ranked masks that cover it."""
    values = []
    for x in range(6):
        covering = [rank for rank, mask in enumerate(order, start=1) if STRIP[mask, 0, x]]
        if not covering:
            values.append(0 if uncovered == "zero" else 255)
        else:
            rank = max(covering) if overlap == "worse_wins" else min(covering)
            values.append(1 if binary else rank)
    return values


CASES = [
    case
    for case in itertools.product(
        ORDERS, (2, 3, 9), ("worse_wins", "better_wins"), ("zero", "ignore"), (0, 2), (False, True)
    )
    if not (case[3] == "ignore" and case[5])
]


@pytest.mark.parametrize(("rank_by", "top_k", "overlap", "uncovered", "min_area_px", "binary"), CASES)
def test_every_combination_of_the_rules(
    rank_by: str, top_k: int, overlap: str, uncovered: str, min_area_px: int, binary: bool
) -> None:
    recipe = Recipe.model_validate(
        {
            "rank_by": rank_by,
            "top_k": top_k,
            "overlap": overlap,
            "uncovered": uncovered,
            "min_area_px": min_area_px,
            "binary": binary,
        }
    )
    order = [mask for mask in ORDERS[rank_by] if STRIP[mask].sum() >= min_area_px][:top_k]
    made = make_label(strip(), recipe, "image")
    assert made is not None
    assert made.label[0].tolist() == by_hand(tuple(order), overlap, uncovered, binary)
    assert made.rank.tolist() == [order.index(m) + 1 if m in order else 0 for m in (A, B, C)]
    assert made.visible_px.sum() == sum(1 for value in made.label[0] if value not in (0, 255))


def test_the_authors_script_is_the_default() -> None:
    recipe = Recipe()
    assert (recipe.top_k, recipe.overlap, recipe.uncovered, recipe.num_classes) == (9, "worse_wins", "zero", 10)
    made = make_label(strip(), recipe, "image")
    assert made is not None
    assert made.label[0].tolist() == [2, 2, 2, 2, 3, 0]  # B is 1, A paints over it, C last


def test_ties_go_by_the_teachers_order() -> None:
    same = np.ones(3, np.float32)
    made = make_label(encode_masks(Masks(STRIP, same, same, ((),) * 3)), Recipe(), "image")
    assert made is not None
    assert made.rank.tolist() == [1, 2, 3]


def test_random_ranks_depend_on_the_image_alone() -> None:
    recipe = Recipe(rank_by="random")
    ranks = {sha: make_label(strip(), recipe, sha).rank.tolist() for sha in map(str, range(20))}  # type: ignore[union-attr]
    assert ranks["3"] == make_label(strip(), recipe, "3").rank.tolist()  # type: ignore[union-attr]
    assert len({tuple(rank) for rank in ranks.values()}) > 3
    assert all(sorted(rank) == [1, 2, 3] for rank in ranks.values())


@pytest.mark.parametrize(("most", "kept"), [(1.0, (B, A, C)), (0.5, (B, C)), (0.2, (C,))])
def test_masks_above_a_share_of_the_frame_are_dropped_before_ranking(most: float, kept: tuple[int, ...]) -> None:
    """A covers 4 of 6 pixels, B 3, C 1."""
    made = make_label(strip(), Recipe(max_area_frac=most), "image")
    assert made is not None
    assert made.rank.tolist() == [kept.index(m) + 1 if m in kept else 0 for m in (A, B, C)]
    assert make_label(strip(), Recipe(max_area_frac=0.1), "image") is None


def test_the_share_is_no_part_of_an_older_identity() -> None:
    assert "max_area_frac" not in Recipe().labelling()
    assert Recipe(max_area_frac=0.5).labelling()["max_area_frac"] == 0.5
    for impossible in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="max_area_frac"):
            Recipe(max_area_frac=impossible)


def test_no_mask_gives_no_label() -> None:
    assert make_label(strip(), Recipe(min_area_px=5), "image") is None
    nothing = Masks(np.zeros((1, 2, 2), bool), np.ones(1, np.float32), np.ones(1, np.float32), ((),))
    assert make_label(encode_masks(nothing), Recipe(), "image") is None  # an empty mask is no mask


def test_area_and_box_are_those_of_the_mask() -> None:
    table = strip().table
    assert table["area_px"].to_pylist() == [4, 3, 1]
    assert table["box"].to_pylist() == [[0, 0, 3, 0], [2, 0, 4, 0], [4, 0, 4, 0]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": 0}, "greater than or equal to 1"),
        ({"top_k": 255}, "less than or equal to 254"),
        ({"uncovered": "ignore", "binary": True}, "there is only one class"),
        ({"uncovered": "ignore", "top_k": 1}, "there is only one class"),
        ({"teacher": {"kind": "sam", "model": "vit_x"}}, "should match pattern"),
        ({"teacher": {"kind": "sam", "model": "mine:build"}}, "needs a checkpoint"),
        ({"teacher": {"kind": "sam", "pred_iou_thresh": 88}}, "less than or equal to 1"),
        ({"topk": 4}, "Extra inputs are not permitted"),
    ],
)
def test_invalid_recipes_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(fields)


def test_inconsistent_masks_are_refused() -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match="bool"):
        Masks(np.zeros((1, 2, 2)), one, one, ((),))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 masks but 1 values of predicted_iou"):
        Masks(np.zeros((2, 2, 2), bool), one, np.ones(2, np.float32), ((), ()))
    with pytest.raises(ValueError, match="finite"):
        Masks(np.zeros((1, 2, 2), bool), one * np.nan, one, ((),))
