"""Claims judged on synthetic tables."""

from pathlib import Path

import pandas as pd
import pytest
from examples import runs_table

from pretrain_sources.config_file import FileError, read_yaml_list
from results.board_choice import UnanswerableError
from results.claims import Expected, judge, judge_entry, parse, sentence
from results.replicate_scores import samples


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
    assert sentence(judgement).startswith(verdict)


def test_not_shown_reports_needed_replicates() -> None:
    small = runs_table({"none": 0.6, "satir": 0.606}, n=3, spread=0.01, seed=5)
    judgement = judge(parse("satir > none"), samples(small))
    assert judgement.verdict == "NOT SHOWN"
    assert judgement.difference.effect > 0
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


def test_long_claim_is_rejected_quickly() -> None:
    """The pattern would backtrack over all signs."""
    with pytest.raises(UnanswerableError, match="too long: 40000 characters; at most 500"):
        parse("a>" * 20000)
