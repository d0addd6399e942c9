"""Claims about sources, judged from the runs of a store: SUPPORTED, NOT SHOWN or CONTRADICTED, never "no difference"."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from results import stats
from results.board_choice import UnanswerableError, one_board
from results.further import on_split
from results.marks import schedule_words, split_words
from results.record import TEST
from results.replicate_scores import METRICS, Samples, find_source, samples
from results.schedule_names import TUNED, ScheduleKind
from results.stats import Difference

Verdict = Literal["SUPPORTED", "NOT SHOWN", "CONTRADICTED"]
FORM = re.compile(
    r"(?P<a>\S+)\s*(?P<sign>[>~])\s*(?P<b>\S+)"
    r"(?:\s+(?P<word>by|within)\s+(?P<by>\d*\.?\d+))?(?:\s+(?P<metric>[a-z_]+))?(?:\s+on\s+(?P<backbone>\S+))?"
)
MOST_CHARACTERS = 500
FORMS = '"A > B [by 0.01] [miou|weighted_f] [on BACKBONE]" or "A ~ B within 0.01 [miou|weighted_f] [on BACKBONE]"'


@dataclass(frozen=True)
class Claim:
    """`a` is ahead of `b` by more than `by`, or (sign ~) within `by` of it; pooled over backbones if `backbone` is None."""

    a: str
    sign: Literal[">", "~"]
    b: str
    by: float
    metric: str
    backbone: str | None


@dataclass(frozen=True)
class Judgement:
    """A verdict and the statistics behind it.

    Attributes:
        difference: between a and b. replicates: the smallest number in any cell. needed: replicates per cell that would show such
            an effect with a power of 80 %; None if no number would, or if the verdict is final. why: why the claim cannot be
            tested. even: whether all cells have the same number of replicates. about: notes on the two sources. test_split: of
            the scores. schedule_kind: of the runs.
    """

    claim: Claim
    verdict: Verdict
    difference: Difference
    backbones: tuple[str, ...]
    replicates: int
    needed: int | None = None
    why: str | None = None
    even: bool = True
    about: tuple[str, ...] = ()
    test_split: str = TEST
    schedule_kind: str = TUNED


class Expected(BaseModel):
    """One entry of a claims file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    claim: str
    expect: Literal["supported", "not shown", "contradicted"]
    target: str | None = None
    protocol: str | None = None
    train_frac: float | None = Field(default=None, gt=0, le=1, strict=True)  # strict: `true` is not a number
    test: str | None = Field(default=None, description="further test split, if the claim is about one")
    schedule: ScheduleKind | None = Field(default=None, description="default: the runs with the default schedule")
    says: str | None = Field(default=None, description="the sentence in a report that this claim supports")
    about: str | None = Field(default=None, description="the question that this entry and the following ones answer")


def parse(text: str) -> Claim:
    """Parse a claim.

    Raises:
        UnanswerableError: the text is not a claim.
    """
    if len(text) > MOST_CHARACTERS:
        raise UnanswerableError(f"the claim is too long: {len(text)} characters; at most {MOST_CHARACTERS}")
    match = FORM.fullmatch(" ".join(text.split()))
    if match is None:
        raise UnanswerableError(f"cannot parse the claim '{text}': write {FORMS}")
    word, sign, metric = match["word"], match["sign"], match["metric"] or "miou"
    if metric not in METRICS:
        raise UnanswerableError(f"unknown metric '{metric}' in '{text}'; known: {', '.join(METRICS)}")
    if (word == "within") != (sign == "~"):
        raise UnanswerableError(f"cannot parse the claim '{text}': use > with 'by' and ~ with 'within': {FORMS}")
    by = float(match["by"] or 0)
    if by >= 1 or (sign == "~" and by == 0):
        raise UnanswerableError(f"invalid margin in '{text}': it must be between 0 and 1, like the scores")
    if match["a"] == match["b"]:
        raise UnanswerableError(f"cannot judge '{text}': it compares '{match['a']}' with itself; name two sources")
    return Claim(match["a"], sign, match["b"], by, metric, match["backbone"])  # type: ignore[arg-type]


def judge(claim: Claim, data: Samples) -> Judgement:
    """Judge a claim from the runs of one board. data: samples of the claim's metric.

    `>`: supported if the 95 % interval lies above the margin, contradicted if it lies below. `~`: supported if two one-sided
    tests at 5 % put the effect within the margin, contradicted if the 95 % interval lies outside.

    Raises:
        UnanswerableError: a source has no usable runs on this board.
    """
    for name in (claim.a, claim.b):
        find_source(data, name)
    backbones = data.common(claim.a, claim.b, claim.backbone)
    if not backbones:
        place = f"on {claim.backbone}" if claim.backbone else "on a backbone in common"
        raise UnanswerableError(f"'{claim.a}' and '{claim.b}' were not both measured {place}")
    pairs = data.pair(claim.a, claim.b, claim.backbone)
    difference = stats.difference(pairs)
    replicates = min(len(sample) for pair in pairs for sample in pair)
    why = difference.why_not or (None if data.judged else "the protocol is too short for a ranking")
    verdict = "NOT SHOWN" if why else _verdict(claim, difference)
    needed = None
    if verdict == "NOT SHOWN" and difference.standard_error is not None:
        margin = difference.effect - claim.by if claim.sign == ">" else claim.by - abs(difference.effect)
        deviation = difference.standard_error * math.sqrt(replicates * len(pairs) / 2)
        needed = stats.needed(margin, deviation, len(pairs)) if margin > 0 else None
    even = len({len(sample) for pair in pairs for sample in pair}) == 1
    about = tuple(data.about[name] for name in (claim.a, claim.b) if name in data.about)
    return Judgement(
        claim,
        verdict,
        difference,
        tuple(backbones),
        replicates,
        needed,
        why,
        even,
        about,
        data.test_split,
        data.schedule_kind,
    )


def _verdict(claim: Claim, difference: Difference) -> Verdict:
    low, high = difference.low, difference.high
    assert low is not None
    assert high is not None
    if claim.sign == ">":
        return "SUPPORTED" if low > claim.by else "CONTRADICTED" if high < claim.by else "NOT SHOWN"
    p = difference.equivalent(claim.by)
    assert p is not None
    if p < 0.05:
        return "SUPPORTED"
    return "CONTRADICTED" if low > claim.by or high < -claim.by else "NOT SHOWN"


def judge_entry(entry: Expected, table: pd.DataFrame) -> Judgement:
    """Judge an entry of a claims file on the board that it names."""
    claim = parse(entry.claim)
    runs = on_split(one_board(table, entry.target, entry.protocol, entry.train_frac, entry.schedule), entry.test)
    return judge(claim, samples(runs, claim.metric))


def sentence(judgement: Judgement) -> str:
    """Format a judgement as one sentence."""
    difference, claim = judgement.difference, judgement.claim
    where = (
        f"on {judgement.backbones[0]}"
        if len(judgement.backbones) == 1
        else f"over {len(judgement.backbones)} backbones"
    )
    where += split_words(judgement.test_split) + schedule_words(judgement.schedule_kind)
    asked = f" ({claim.a} ~ {claim.b} within {claim.by:g})" if claim.sign == "~" else ""
    asked = f" (by {claim.by:g})" if claim.sign == ">" and claim.by else asked
    text = f"{judgement.verdict}{asked}: {claim.a} is {abs(difference.effect):.4f} {METRICS[claim.metric]} "
    text += f"{'ahead of' if difference.effect >= 0 else 'behind'} {claim.b} {where}"
    if difference.low is not None and difference.p is not None:
        text += (
            f", 95 % interval {difference.low:+.4f} to {difference.high:+.4f}, p of no difference {difference.p:.3g}"
        )
        near = difference.equivalent(claim.by) if claim.sign == "~" else None
        text += "" if near is None else f", p of a larger one {near:.3g}"
    text += (
        f"; {judgement.replicates} replicates each"
        if judgement.even
        else f"; at least {judgement.replicates} replicates each"
    )
    if judgement.why:
        text += f". {judgement.why}"
    elif judgement.verdict == "NOT SHOWN":
        toward = abs(difference.effect) < claim.by if claim.sign == "~" else difference.effect > claim.by
        more = f"about {judgement.needed}" if judgement.needed else f"more than {stats.MOST_REPLICATES}"
        text += f"; {more} would be needed" if toward else "; with this effect, more replicates would not show it"
    return ". ".join([text, *judgement.about])
