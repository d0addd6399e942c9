"""Tiers on synthetic tables."""

from examples import SOURCES, runs_table

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
