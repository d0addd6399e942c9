"""Tiers on synthetic tables."""

import pytest
from examples import SOURCES, runs_table

from results.board_choice import UnanswerableError
from results.claims import judge, parse, sentence
from results.marks import ORACLE
from results.replicate_scores import samples
from results.tiers import tier_notes, tiers


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
    assert "Means over different backbones are not comparable" in notes
