"""Tiers on synthetic tables."""

import pytest
from examples import SOURCES, runs_table

from results.board_choice import UnanswerableError
from results.charts import tiers_chart
from results.claims import judge, parse, sentence
from results.marks import ORACLE
from results.replicate_scores import samples
from results.tiers import tier_notes, tier_table, tiers


def test_tiers_separate_only_established_differences() -> None:
    rows = tiers(samples(runs_table())).set_index("source")
    assert rows["tier"].to_dict() == {"imagenet": 1, "satir": 1, "satir~shuffled": 3, "none": 4}
    assert rows.loc["none", "beaten_by"] == "imagenet, satir, satir~shuffled"
    same = tiers(samples(runs_table(dict.fromkeys(SOURCES, 0.6))))
    assert (same["tier"] == 1).all()


def test_no_tier_without_interval_or_ranking() -> None:
    assert tiers(samples(runs_table(n=2)))["tier"].isna().all()
    assert tiers(samples(runs_table(ranked=False)))["tier"].isna().all()


def test_an_oracle_is_compared_and_has_no_tier() -> None:
    runs = runs_table()
    plain = tiers(samples(runs)).set_index("source")
    runs["leak"] = runs["leak"].astype(object).where(runs["source"] != "satir", f"{ORACLE}people annotated its masks")
    data = samples(runs)
    rows = tiers(data).set_index("source")
    assert data.oracles == {"satir"}
    assert rows["tier"].isna()["satir"]
    assert rows["tier"].drop("satir").to_dict() == {"imagenet": 1, "satir~shuffled": 2, "none": 3}
    assert rows["beaten_by"].to_dict() == plain["beaten_by"].to_dict(), "what it is better than is still said"
    judgement = judge(parse("satir > none"), data)
    assert judgement.verdict == "SUPPORTED"
    assert "oracle, never ranked: satir: people annotated its masks" in sentence(judgement)
    runs["leak"] = runs["leak"].where(runs["source"] != "satir", "seen")
    with pytest.raises(UnanswerableError, match="no cell of 'satir' can be compared"):
        judge(parse("satir > none"), samples(runs))


def test_pairs_without_a_common_backbone_are_untested() -> None:
    runs = runs_table()
    apart = runs[
        ((runs["source"] == "none") & (runs["backbone"] == "tiny"))
        | ((runs["source"] == "satir") & (runs["backbone"] == "large"))
    ]
    data = samples(apart)
    rows = tiers(data)
    assert rows["tier"].isna().all()
    assert rows["untested"].tolist() == [1, 1]
    notes = " ".join(tier_notes(data, rows))
    assert "1 pairs have no interval or no common backbone" in notes
    assert "Within a tier, the order says nothing: no backbone has all sources" in notes


def test_the_order_is_that_of_the_backbones_that_all_sources_have() -> None:
    """On `large`, everything scores 0.1 more: a source measured only there must not look better for it."""
    runs = runs_table(dict.fromkeys(SOURCES, 0.6))  # by chance, imagenet is last on `tiny`
    data = samples(runs[(runs["backbone"] == "tiny") | (runs["source"] == "imagenet")])
    rows = tiers(data)
    assert (rows["tier"] == 1).all()
    assert rows["source"].iloc[-1] == "imagenet"
    assert rows.set_index("source")["mean"].round(1).to_dict() == dict.fromkeys(SOURCES, 0.6)
    assert "the order is that of their mean on tiny, which all sources have" in " ".join(tier_notes(data, rows))
    drawn = tiers_chart(data, "mIoU", rows["source"]).to_dict()
    assert all(layer["encoding"]["y"]["sort"] == list(rows["source"]) for layer in drawn["layer"]), "as in the table"
    shown = tier_table(data, rows, "mIoU").set_index("source")
    assert list(shown) == ["tier", "mIoU on large", "mIoU on tiny", "replicates", "established better", "better alone"]
    assert shown["mIoU on large"].round(1).dropna().to_dict() == {"imagenet": 0.7}
    assert (shown["mIoU on tiny"] - rows.set_index("source")["mean"]).abs().max() == 0


def test_one_backbone_needs_no_columns_of_its_own() -> None:
    runs = runs_table()
    data = samples(runs[runs["backbone"] == "tiny"])
    shown = tier_table(data, tiers(data), "weighted F-measure")
    assert list(shown)[:4] == ["tier", "source", "mean weighted F-measure", "backbones"]
