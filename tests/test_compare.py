"""Pairwise comparison on synthetic tables."""

from typing import Any

import pandas as pd
import pytest
from examples import BACKBONES, runs_table

from results import stats
from results.board_choice import UnanswerableError, one_board
from results.compare import POOLED, compare
from results.replicate_scores import samples
from results.uncertainty import all_pairs


def test_pair_depends_only_on_its_own_scores() -> None:
    runs = runs_table()
    rows = compare(samples(runs), "satir", "none").set_index("backbone")
    assert list(rows.index) == [*sorted(BACKBONES), POOLED]
    for backbone in BACKBONES:
        a, b = (
            runs[(runs["source"] == s) & (runs["backbone"] == backbone)]["miou"].tolist() for s in ("satir", "none")
        )
        one = stats.difference([(a, b)])
        assert tuple(rows.loc[backbone, ["effect", "low", "high", "p"]]) == (one.effect, one.low, one.high, one.p)
    assert rows.loc[POOLED, "effect"] == pytest.approx(rows.loc[list(BACKBONES), "effect"].mean())
    pooled: Any = rows.loc[POOLED]
    assert pooled["p"] <= pooled["p_holm"]


def test_order_names_and_other_sources_do_not_matter() -> None:
    runs = runs_table()
    columns = ["effect", "low", "high", "p"]
    first = compare(samples(runs), "satir", "none")[columns]
    shuffled = runs.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(compare(samples(shuffled), "satir", "none")[columns], first)
    fewer = runs[runs["source"].isin(["satir", "none"])]
    pd.testing.assert_frame_equal(compare(samples(fewer), "satir", "none")[columns], first)
    renamed = runs.assign(source=runs["source"].replace({"satir": "a", "none": "z"}))
    pd.testing.assert_frame_equal(compare(samples(renamed), "a", "z")[columns], first)
    turned = compare(samples(runs), "none", "satir")[columns]
    pd.testing.assert_frame_equal(turned[["effect", "p"]], pd.DataFrame({"effect": -first["effect"], "p": first["p"]}))


def test_adjusted_p_covers_all_pairs() -> None:
    pairs = all_pairs(samples(runs_table()))
    assert len(pairs) == 6
    raw = [one.judged.p for one, _ in pairs.values()]
    assert [p for _, p in pairs.values()] == stats.holm(raw)  # type: ignore[arg-type]


def test_unequal_numbers_of_replicates() -> None:
    few = runs_table(n=3, seed=1)
    runs = pd.concat([runs_table()[lambda rows: rows["source"] == "none"], few[few["source"] == "satir"]])
    rows = compare(samples(runs), "satir", "none").set_index("backbone").loc["tiny"]
    assert (rows["n_a"], rows["n_b"]) == (3, 5)
    assert rows["low"] < rows["effect"] < rows["high"]


def test_unanswerable_questions() -> None:
    data = samples(runs_table())
    with pytest.raises(UnanswerableError, match=r"no runs of 'satyr' on this board; available: imagenet, none, satir"):
        compare(data, "satyr", "none")
    with pytest.raises(UnanswerableError, match="'none' with itself"):
        compare(data, "none", "none")
    with pytest.raises(UnanswerableError, match=r"unknown metric 'iou'; known: miou, weighted_f"):
        samples(runs_table(), "iou")
    with pytest.raises(UnanswerableError, match="no runs in this store yet"):
        one_board(runs_table().iloc[:0])
    two = pd.concat([runs_table(), runs_table(protocol="other", protocol_hash="o" * 64)])
    with pytest.raises(UnanswerableError, match=r"choose one with --target, --protocol: soda, soda-v1; soda, other"):
        one_board(two)
    assert set(one_board(two, protocol="other")["protocol"]) == {"other"}
