"""Claims judged on synthetic tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Bench
from elsewhere import fill
from examples import runs_table
from pydantic import ValidationError

from pretrain_sources.config_file import FileError, read_yaml_list
from results.board_choice import UnanswerableError
from results.claims import Expected, judge, judge_entry, parse, sentence
from results.replicate_scores import samples
from results.uncertainty import all_pairs


def test_sentence_has_p_values_and_replicates() -> None:
    near = judge(parse("satir ~ imagenet within 0.02"), samples(runs_table()))
    assert "p of no difference" in sentence(near)
    assert "p of a larger one" in sentence(near)
    few = runs_table(n=3, seed=1)
    runs = pd.concat([runs_table()[lambda rows: rows["source"] == "none"], few[few["source"] == "satir"]])
    assert "at least 3 replicates each" in sentence(judge(parse("satir > none"), samples(runs)))


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
def test_verdicts(text: str, verdict: str) -> None:
    claim = parse(text)
    judgement = judge(claim, samples(runs_table(), claim.metric))
    assert judgement.verdict == verdict, sentence(judgement)
    assert sentence(judgement).startswith(f"{verdict} alone and among all 6 pairs")


def test_a_pair_alone_and_among_all() -> None:
    """One pair of six is just established alone; among all six it is not, and the board's adjusted p says the same."""
    runs = runs_table({"none": 0.6, "a": 0.6, "b": 0.6, "satir": 0.6065}, n=5, spread=0.006, seed=4)
    data = samples(runs)
    for text in ("satir > none", "none > satir", "satir > none by 0.0001", "satir ~ none within 0.0001"):
        judgement = judge(parse(text), data)
        assert judgement.pairs == 6
        [p] = [p for pair, (_, p) in all_pairs(data).items() if set(pair) == {"satir", "none"}]
        assert judgement.p_adjusted == p
        assert p is not None
        assert judgement.found.judged.p is not None
        assert judgement.found.judged.p < 0.05 < p, text
        assert judgement.verdict == "NOT SHOWN"
        assert judgement.alone == ("SUPPORTED" if text.startswith("satir >") else "CONTRADICTED")
        assert sentence(judgement).startswith(f"{judgement.alone} alone, NOT SHOWN among all 6 pairs")
    pair = samples(runs_table({"none": 0.6, "satir": 0.65}))
    assert judge(parse("satir > none"), pair).pairs == 1
    assert sentence(judge(parse("satir > none"), pair)).startswith("SUPPORTED: ")


def test_verdict_alone_is_what_the_interval_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = samples(
            runs_table({"none": 0.6, "satir": 0.6 + rng.normal(0, 0.01)}, n=4, spread=0.01, seed=int(rng.integers(99)))
        )
        for sign, by in ((">", 0.0), (">", 0.005), ("~", 0.005), ("~", 0.02)):
            words = f"satir > none by {by}" if sign == ">" else f"satir ~ none within {by}"
            judgement = judge(parse(words), data)
            one = judgement.found.judged
            assert one.low is not None
            assert one.high is not None
            if sign == ">":
                expected = "SUPPORTED" if one.low > by else "CONTRADICTED" if one.high < by else "NOT SHOWN"
            else:
                near = one.equivalent(by)
                assert near is not None
                outside = one.low > by or one.high < -by
                expected = "SUPPORTED" if near < 0.05 else "CONTRADICTED" if outside else "NOT SHOWN"
            assert judgement.alone == judgement.verdict == expected


def test_not_shown_reports_needed_replicates() -> None:
    small = runs_table({"none": 0.6, "satir": 0.606}, n=3, spread=0.01, seed=5)
    judgement = judge(parse("satir > none"), samples(small))
    assert judgement.verdict == "NOT SHOWN"
    assert judgement.found.judged.effect > 0
    assert judgement.needed is not None
    assert judgement.needed > 3
    assert f"about {judgement.needed} would be needed" in sentence(judgement)
    assert judge(parse("none > satir"), samples(small)).needed is None  # the effect has the wrong sign
    two = judge(parse("satir > none"), samples(runs_table(n=2)))
    assert (two.verdict, two.needed) == ("NOT SHOWN", None)
    assert "no interval under 3 replicates" in sentence(two)
    short = judge(parse("satir > none"), samples(runs_table(ranked=False)))
    assert short.verdict == "NOT SHOWN"
    assert "too short for a ranking" in sentence(short)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("satir is better", "cannot parse the claim"),
        ("satir > none by lots", "cannot parse the claim"),
        ("satir ~ none by 0.1", "~ with 'within'"),
        ("satir ~ none", "~ with 'within'"),
        ("satir > none within 0.1", "use > with 'by'"),
        ("satir > none by 3", "between 0 and 1"),
        ("satir ~ none within 0", "between 0 and 1"),
        ("satir > none by 0.1 accuracy", "unknown metric 'accuracy'"),
        ("", "cannot parse the claim"),
        ("none > none", "compares 'none' with itself"),
        ("none ~ none within 0.01", "compares 'none' with itself"),
    ],
)
def test_invalid_claim(text: str, why: str) -> None:
    with pytest.raises(UnanswerableError, match=why):
        parse(text)


def test_claims_file(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text('- {claim: "satir > none", expect: supported}\n- {claim: "none > satir", expect: contradicted}\n')
    for entry in read_yaml_list(path, Expected):
        assert judge_entry(entry, runs_table()).verdict.lower() == entry.expect
    path.write_text("- {claim: x, expect: proven}\n- {clam: y}\n- {claim: x, expect: supported, train_frac: true}\n")
    with pytest.raises(FileError) as wrong:
        read_yaml_list(path, Expected)
    for part in (
        "line 1: 0.expect: ",
        "line 2: '1.claim' is missing",
        "line 2: unknown key '1.clam': did you mean 'claim'?",
        "line 3: 2.train_frac: must be a number, got True",
    ):
        assert part in str(wrong.value)


def test_claims_on_two_targets_say_which_images_are_meant(bench: Bench, tmp_path: Path) -> None:
    for target in ("soda", "other"):
        store = fill(tmp_path / "store", target)
    path = tmp_path / "claims.yaml"
    of_soda = '- {claim: "satir > none", expect: supported, target: soda}\n'
    path.write_text(of_soda + '- {claim: "satir > none", expect: contradicted, target: other, test: elsewhere}\n')
    for form in ("text", "md"):
        out = bench("claim", "--file", path, "--store", store.root, "--format", form).out
        assert "On soda: Over images: 12 groups" in out
        assert "On other, elsewhere: Over images: 12 groups" in out
    path.write_text(of_soda)
    alone = bench("claim", "--file", path, "--store", store.root)
    assert (alone.code, "On soda" in alone.out, "Over images: 12 groups" in alone.out) == (0, False, True)


def test_a_claim_over_backbones_is_not_judged_on_one() -> None:
    """A sentence over two backbones must not rest on the first that is there."""
    entry = Expected(claim="satir > none", expect="supported", backbones=2)
    assert set(judge_entry(entry, runs_table()).backbones) == {"tiny", "large"}
    with pytest.raises(UnanswerableError, match="measured on tiny only; 2 backbones are needed"):
        judge_entry(entry, runs_table().query("backbone == 'tiny'"))
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Expected(claim="satir > none", expect="supported", backbones=0)


def test_long_claim_is_rejected_quickly() -> None:
    """The pattern would backtrack over all signs."""
    with pytest.raises(UnanswerableError, match="too long: 40000 characters; at most 500"):
        parse("a>" * 20000)
