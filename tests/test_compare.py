"""Pairs, tiers and claims, from tables whose truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from examples import record

from pretrain_sources.yamlfile import FileError, read_yaml_list
from results import stats
from results.claims import Expected, judge, judge_entry, parse, sentence
from results.compare import POOLED, Unanswerable, all_pairs, compare, one_board, samples, tier_notes, tiers

SOURCES = {"none": 0.60, "imagenet": 0.65, "satir": 0.651, "satir~shuffled": 0.61}
BACKBONES = ("tiny", "large")


def table(
    sources: dict[str, float] = SOURCES, n: int = 5, seed: int = 0, spread: float = 0.004, **changes: Any
) -> pd.DataFrame:
    """Rows as `load_table` gives them: every source on two backbones, the second 0.1 better; the mIoU normal around a mean."""
    rng = np.random.default_rng(seed)
    rows = []
    for source, mean in sources.items():
        for i, backbone in enumerate(BACKBONES):
            cell = f"{source}{backbone}".encode().hex().ljust(64, "0")[:64]
            for replicate in range(n):
                made = record(replicate, cell=cell, source=source, backbone=backbone, replicates=n, **changes)
                flat = made.model_dump(
                    exclude={"scores", "tuning", "pretraining", "provenance", "settings", "schema_version"}
                )
                for part in (made.scores, made.tuning, made.provenance):
                    flat |= part.model_dump() if part else {}
                score = mean + 0.1 * i + rng.normal(0, spread)
                rows.append(
                    flat
                    | {
                        "miou": score,
                        "weighted_f": score + 0.05,
                        "heldout_miou": None,
                        "heldout_miou_constant": None,
                        "badge": None,
                    }
                )
    return pd.DataFrame(rows)


def test_a_pair_is_what_its_own_scores_say() -> None:
    runs = table()
    told = compare(samples(runs), "satir", "none").set_index("backbone")
    assert list(told.index) == [*sorted(BACKBONES), POOLED]
    for backbone in BACKBONES:
        a, b = (
            runs[(runs["source"] == s) & (runs["backbone"] == backbone)]["miou"].tolist() for s in ("satir", "none")
        )
        one = stats.difference([(a, b)])
        assert tuple(told.loc[backbone, ["effect", "low", "high", "p"]]) == (one.effect, one.low, one.high, one.p)
    assert told.loc[POOLED, "effect"] == pytest.approx(told.loc[list(BACKBONES), "effect"].mean())
    pooled: Any = told.loc[POOLED]
    assert pooled["p"] <= pooled["p_holm"]


def test_order_names_and_other_sources_change_no_pair() -> None:
    runs = table()
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


def test_tiers_put_apart_what_is_established_and_nothing_else() -> None:
    rows = tiers(samples(table())).set_index("source")
    assert rows["tier"].to_dict() == {"imagenet": 1, "satir": 1, "satir~shuffled": 3, "none": 4}
    assert rows.loc["none", "beaten_by"] == "imagenet, satir, satir~shuffled"
    same = tiers(samples(table(dict.fromkeys(SOURCES, 0.6))))
    assert (same["tier"] == 1).all()


def test_no_tier_without_an_interval_or_on_a_board_that_ranks_nothing() -> None:
    assert tiers(samples(table(n=2)))["tier"].isna().all()
    assert tiers(samples(table(ranked=False)))["tier"].isna().all()


def test_the_adjusted_p_counts_all_pairs() -> None:
    pairs = all_pairs(samples(table()))
    assert len(pairs) == 6
    raw = [one.p for one, _ in pairs.values()]
    assert [p for _, p in pairs.values()] == stats.holm(raw)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "diverged", "reason": "loss is nan"}, "1 diverged of 5: loss is nan"),
        ({"leak": "it has seen the test"}, "it has seen the test"),
    ],
)
def test_a_cell_that_is_not_whole_or_leaks_is_left_out_with_its_reason(change: dict[str, str], why: str) -> None:
    runs = table()
    there = (runs["source"] == "satir") & ((runs["replicate"] == 0) | ("leak" in change))
    for name, value in change.items():
        runs.loc[there, name] = value
    found = samples(runs)
    assert "satir" not in found.scores
    assert why in found.left_out["satir", "tiny"]
    with pytest.raises(Unanswerable, match=why):
        compare(found, "satir", "none")
    assert len(all_pairs(found)) == 3


def test_a_score_that_is_no_number_takes_its_cell_out_and_says_so() -> None:
    runs = table()
    runs.loc[(runs["source"] == "satir") & (runs["backbone"] == "tiny") & (runs["replicate"] == 1), "miou"] = np.nan
    found = samples(runs)
    assert found.left_out["satir", "tiny"] == "one of its runs has no mIoU"
    assert compare(found, "satir", "none")["backbone"].tolist() == ["large"]


def test_unequal_replicates_are_compared_as_they_are() -> None:
    few = table(n=3, seed=1)
    runs = pd.concat([table()[lambda rows: rows["source"] == "none"], few[few["source"] == "satir"]])
    told = compare(samples(runs), "satir", "none").set_index("backbone").loc["tiny"]
    assert (told["n_a"], told["n_b"]) == (3, 5)
    assert told["low"] < told["effect"] < told["high"]


def test_what_cannot_be_asked_is_told_in_a_sentence() -> None:
    found = samples(table())
    with pytest.raises(Unanswerable, match=r"no runs of 'satyr' on this board; there are: imagenet, none, satir"):
        compare(found, "satyr", "none")
    with pytest.raises(Unanswerable, match="against itself"):
        compare(found, "none", "none")
    with pytest.raises(Unanswerable, match=r"unknown metric 'iou'; known: miou, weighted_f"):
        samples(table(), "iou")
    with pytest.raises(Unanswerable, match="no runs in this store yet"):
        one_board(table().iloc[:0])
    two = pd.concat([table(), table(protocol="other", protocol_hash="o" * 64)])
    with pytest.raises(Unanswerable, match=r"name one with --target, --protocol: soda, soda-v1; soda, other"):
        one_board(two)
    assert set(one_board(two, protocol="other")["protocol"]) == {"other"}


def test_of_one_name_the_newest_data_or_settings_count_and_the_others_are_named() -> None:
    old = table().assign(finished="2020-01-01T00:00:00+00:00", target_hash="o" * 64)
    runs = one_board(pd.concat([old, table()]))
    assert set(runs["target_hash"]) == {"t" * 64}
    assert f"{len(old)} runs on other data, settings or versions" in samples(runs).notes[-1]
    failed = table().iloc[:1].assign(finished="2099-01-01T00:00:00+00:00", target_hash="f" * 64, status="failed")
    assert set(one_board(pd.concat([table(), failed]))["target_hash"]) == {"t" * 64}, (
        "what measured nothing hides nothing"
    )


def test_pairs_without_a_common_backbone_are_untested() -> None:
    runs = table()
    apart = runs[
        ((runs["source"] == "none") & (runs["backbone"] == "tiny"))
        | ((runs["source"] == "satir") & (runs["backbone"] == "large"))
    ]
    found = samples(apart)
    rows = tiers(found)
    assert rows["tier"].isna().all()
    assert rows["untested"].tolist() == [1, 1]
    notes = " ".join(tier_notes(found, rows))
    assert "1 pairs have no interval, or no backbone in common" in notes
    assert "Means over different backbones do not compare" in notes


def test_the_sentence_says_which_p_and_how_many() -> None:
    near = judge(parse("satir ~ imagenet within 0.02"), samples(table()))
    assert "p of no difference" in sentence(near)
    assert "p of a larger one" in sentence(near)
    few = table(n=3, seed=1)
    runs = pd.concat([table()[lambda rows: rows["source"] == "none"], few[few["source"] == "satir"]])
    assert "3 replicates or more" in sentence(judge(parse("satir > none"), samples(runs)))


# -- claims --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("satir > none", "SUPPORTED"),
        ("satir > none by 0.03 miou", "SUPPORTED"),
        ("satir > none by 0.05", "NOT SHOWN"),
        ("satir > none by 0.2", "CONTRADICTED"),
        ("none > satir", "CONTRADICTED"),
        ("satir > none by 0.03 weighted_f on tiny", "SUPPORTED"),
        ("satir ~ imagenet within 0.02", "SUPPORTED"),
        ("satir ~ imagenet within 0.002", "NOT SHOWN"),
        ("satir ~ none within 0.01", "CONTRADICTED"),
    ],
)
def test_claims_are_judged_by_what_is_known(text: str, verdict: str) -> None:
    claim = parse(text)
    found = judge(claim, samples(table(), claim.metric))
    assert found.verdict == verdict, sentence(found)
    assert sentence(found).startswith(verdict)


def test_not_shown_says_what_it_would_take() -> None:
    small = table({"none": 0.6, "satir": 0.606}, n=3, spread=0.01, seed=5)
    found = judge(parse("satir > none"), samples(small))
    assert found.verdict == "NOT SHOWN"
    assert found.told.effect > 0
    assert found.needed is not None
    assert found.needed > 3
    assert f"about {found.needed} would be needed" in sentence(found)
    assert judge(parse("none > satir"), samples(small)).needed is None  # it points the other way
    two = judge(parse("satir > none"), samples(table(n=2)))
    assert (two.verdict, two.needed) == ("NOT SHOWN", None)
    assert "no interval under 3 replicates" in sentence(two)
    short = judge(parse("satir > none"), samples(table(ranked=False)))
    assert short.verdict == "NOT SHOWN"
    assert "too short to rank" in sentence(short)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("satir is better", "cannot read the claim"),
        ("satir > none by lots", "cannot read the claim"),
        ("satir ~ none by 0.1", "~ with 'within'"),
        ("satir ~ none", "~ with 'within'"),
        ("satir > none within 0.1", "> goes with 'by'"),
        ("satir > none by 3", "between 0 and 1"),
        ("satir ~ none within 0", "between 0 and 1"),
        ("satir > none by 0.1 accuracy", "unknown metric 'accuracy'"),
        ("", "cannot read the claim"),
    ],
)
def test_a_claim_that_does_not_parse_says_how_one_is_written(text: str, why: str) -> None:
    with pytest.raises(Unanswerable, match=why):
        parse(text)


def test_a_file_of_claims(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text('- {claim: "satir > none", expect: supported}\n- {claim: "none > satir", expect: contradicted}\n')
    for entry in read_yaml_list(path, Expected):
        assert judge_entry(entry, table()).verdict.lower() == entry.expect
    path.write_text("- {claim: x, expect: proven}\n- {clam: y}\n- {claim: x, expect: supported, train_frac: true}\n")
    with pytest.raises(FileError) as wrong:
        read_yaml_list(path, Expected)
    for says in (
        "line 1: 0.expect: ",
        "line 2: '1.claim' is missing",
        "line 2: unknown key '1.clam': did you mean 'claim'?",
        "line 3: 2.train_frac: must be a number, found True",
    ):
        assert says in str(wrong.value)


def test_a_long_claim_is_refused_at_once() -> None:
    """Of so many signs it would be tried which one is meant."""
    with pytest.raises(Unanswerable, match="a claim of 40000 characters; at most 500"):
        parse("a>" * 20000)
