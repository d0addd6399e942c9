"""Claims about sources, judged by what a store holds: SUPPORTED, NOT SHOWN or CONTRADICTED, never "no difference"."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from results import stats
from results.board_choice import UnanswerableError, one_board
from results.replicate_scores import METRICS, Samples, find_source, samples
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
    """`a` is ahead of `b` by more than `by`, or (sign ~) within `by` of it; pooled over backbones where none is named."""

    a: str
    sign: Literal[">", "~"]
    b: str
    by: float
    metric: str
    backbone: str | None


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it stands on.

    Attributes:
        told: the difference of a and b. replicates: the fewest of any cell. even: whether all have as many. needed: replicates of
            each with which such an effect would be shown in 80 % of experiments; None where no number would, or the verdict
            stands. why: what stands in the way. about: what must be said of the two sources.
    """

    claim: Claim
    verdict: Verdict
    told: Difference
    backbones: tuple[str, ...]
    replicates: int
    needed: int | None = None
    why: str | None = None
    even: bool = True
    about: tuple[str, ...] = ()


class Expected(BaseModel):
    """One entry of a claims file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    claim: str
    expect: Literal["supported", "not shown", "contradicted"]
    target: str | None = None
    protocol: str | None = None
    train_frac: float | None = Field(default=None, gt=0, le=1, strict=True)  # `true` is no number
    says: str | None = Field(default=None, description="the sentence of a text that stands on this claim")
    about: str | None = Field(default=None, description="the question that this entry and those after it are about")


def parse(text: str) -> Claim:
    """A claim from its words.

    Raises:
        UnanswerableError: it is none.
    """
    if len(text) > MOST_CHARACTERS:
        raise UnanswerableError(f"a claim of {len(text)} characters; at most {MOST_CHARACTERS}")
    found = FORM.fullmatch(" ".join(text.split()))
    if found is None:
        raise UnanswerableError(f"cannot read the claim '{text}': write {FORMS}")
    word, sign, metric = found["word"], found["sign"], found["metric"] or "miou"
    if metric not in METRICS:
        raise UnanswerableError(f"unknown metric '{metric}' in '{text}'; known: {', '.join(METRICS)}")
    if (word == "within") != (sign == "~"):
        raise UnanswerableError(f"cannot read the claim '{text}': > goes with 'by', ~ with 'within': {FORMS}")
    by = float(found["by"] or 0)
    if by >= 1 or (sign == "~" and by == 0):
        raise UnanswerableError(f"'{text}': scores are fractions, so a margin lies between 0 and 1")
    return Claim(found["a"], sign, found["b"], by, metric, found["backbone"])  # type: ignore[arg-type]


def judge(claim: Claim, found: Samples) -> Judgement:
    """What the runs of one board say of a claim. found: samples of the claim's metric.

    `>`: supported where the 95 % interval lies above the margin, contradicted where it lies below. `~`: supported where two
    one-sided tests at 5 % put the effect within the margin, contradicted where the 95 % interval lies outside.

    Raises:
        UnanswerableError: a source was not measured here.
    """
    for name in (claim.a, claim.b):
        find_source(found, name)
    backbones = found.common(claim.a, claim.b, claim.backbone)
    if not backbones:
        place = f"on {claim.backbone}" if claim.backbone else "on a backbone in common"
        raise UnanswerableError(f"'{claim.a}' and '{claim.b}' were not both measured {place}")
    pairs = found.pair(claim.a, claim.b, claim.backbone)
    told = stats.difference(pairs)
    replicates = min(len(sample) for pair in pairs for sample in pair)
    why = told.why_not or (None if found.judged else "the protocol is too short to rank anything")
    verdict = "NOT SHOWN" if why else _verdict(claim, told)
    needed = None
    if verdict == "NOT SHOWN" and told.standard_error is not None:
        margin = told.effect - claim.by if claim.sign == ">" else claim.by - abs(told.effect)
        deviation = told.standard_error * math.sqrt(replicates * len(pairs) / 2)
        needed = stats.needed(margin, deviation, len(pairs)) if margin > 0 else None
    even = len({len(sample) for pair in pairs for sample in pair}) == 1
    about = tuple(found.about[name] for name in (claim.a, claim.b) if name in found.about)
    return Judgement(claim, verdict, told, tuple(backbones), replicates, needed, why, even, about)


def _verdict(claim: Claim, told: Difference) -> Verdict:
    assert told.low is not None
    assert told.high is not None
    if claim.sign == ">":
        return "SUPPORTED" if told.low > claim.by else "CONTRADICTED" if told.high < claim.by else "NOT SHOWN"
    p = told.equivalent(claim.by)
    assert p is not None
    if p < 0.05:
        return "SUPPORTED"
    return "CONTRADICTED" if told.low > claim.by or told.high < -claim.by else "NOT SHOWN"


def judge_entry(entry: Expected, table: pd.DataFrame) -> Judgement:
    """The judgement of an entry on the board that it names."""
    claim = parse(entry.claim)
    return judge(claim, samples(one_board(table, entry.target, entry.protocol, entry.train_frac), claim.metric))


def sentence(found: Judgement) -> str:
    """The judgement in words."""
    told, claim = found.told, found.claim
    where = f"on {found.backbones[0]}" if len(found.backbones) == 1 else f"over {len(found.backbones)} backbones"
    asked = f" ({claim.a} ~ {claim.b} within {claim.by:g})" if claim.sign == "~" else ""
    asked = f" (by {claim.by:g})" if claim.sign == ">" and claim.by else asked
    text = f"{found.verdict}{asked}: {claim.a} is {abs(told.effect):.4f} {METRICS[claim.metric]} "
    text += f"{'ahead of' if told.effect >= 0 else 'behind'} {claim.b} {where}"
    if told.low is not None and told.p is not None:
        text += f", 95 % interval {told.low:+.4f} to {told.high:+.4f}, p of no difference {told.p:.3g}"
        near = told.equivalent(claim.by) if claim.sign == "~" else None
        text += "" if near is None else f", p of a larger one {near:.3g}"
    text += f"; {found.replicates} replicates each" if found.even else f"; {found.replicates} replicates or more"
    if found.why:
        text += f". {found.why}"
    elif found.verdict == "NOT SHOWN":
        toward = abs(told.effect) < claim.by if claim.sign == "~" else told.effect > claim.by
        more = f"about {found.needed}" if found.needed else f"more than {stats.MOST_REPLICATES}"
        text += f"; {more} would be needed" if toward else "; more replicates of such an effect would not show it"
    return ". ".join([text, *found.about])
