"""Claims about sources, judged from the runs of a store: SUPPORTED, NOT SHOWN or CONTRADICTED, never "no difference".

A claim has two verdicts: as if its pair of sources were the only one (alone), and among all pairs of the board (Holm). The second
is the verdict, because a board invites to look at all pairs and to report the best.
"""

import math
import re
from collections.abc import Callable
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
from results.uncertainty import Uncertainty, all_pairs

Verdict = Literal["SUPPORTED", "NOT SHOWN", "CONTRADICTED"]
FORM = re.compile(
    r"(?P<a>\S+)\s*(?P<sign>[>~])\s*(?P<b>\S+)"
    r"(?:\s+(?P<word>by|within)\s+(?P<by>\d*\.?\d+))?(?:\s+(?P<metric>[a-z_]+))?(?:\s+on\s+(?P<backbone>\S+))?"
)
MOST_CHARACTERS = 500
LEVEL = 0.05
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
    """Two verdicts and the statistics behind them.

    Attributes:
        verdict: among all pairs of the board. alone: of this pair alone. found: difference between a and b, with its intervals.
            pairs: number of pairs that were tested, this one included. p_adjusted: p of no difference, adjusted for them.
            replicates: the smallest number in any cell. needed: replicates per cell that would show such
            an effect with a power of 80 %; None if no number would, or if the verdict is final. why: why the claim cannot be
            tested. even: whether all cells have the same number of replicates. about: notes on the two sources. test_split: of
            the scores. schedule_kind: of the runs.
    """

    claim: Claim
    verdict: Verdict
    alone: Verdict
    found: Uncertainty
    backbones: tuple[str, ...]
    replicates: int
    pairs: int = 1
    p_adjusted: float | None = None
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
    expect: Literal["supported", "not shown", "contradicted"] = Field(description="the verdict among all pairs")
    target: str | None = None
    protocol: str | None = None
    train_frac: float | None = Field(default=None, gt=0, le=1, strict=True)  # strict: `true` is not a number
    test: str | None = Field(default=None, description="further test split, if the claim is about one")
    schedule: ScheduleKind | None = Field(default=None, description="default: the runs with the default schedule")
    backbones: int = Field(
        default=1, ge=1, strict=True, description="least number of backbones to pool; fewer: not judged"
    )
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
    tests at 5 % put the effect within the margin, contradicted if the 95 % interval lies outside. The interval is that over
    trainings and images together, where there is one. Among all pairs p is adjusted by Holm's method: that of this claim in
    place of its pair's, beside the p of no difference of every other pair.

    Raises:
        UnanswerableError: a source has no usable runs on this board.
    """
    for name in (claim.a, claim.b):
        find_source(data, name)
    backbones = data.common(claim.a, claim.b, claim.backbone)
    if not backbones:
        place = f"on {claim.backbone}" if claim.backbone else "on a backbone in common"
        raise UnanswerableError(f"'{claim.a}' and '{claim.b}' were not both measured {place}")
    board = all_pairs(data, claim.backbone)
    one, _ = board[min(claim.a, claim.b), max(claim.a, claim.b)]
    found = one if claim.a < claim.b else one.turned()
    others = [p for key, (other, _) in board.items() if other is not one and (p := other.judged.p) is not None]
    pairs = data.pair(claim.a, claim.b, claim.backbone)
    replicates = min(len(sample) for pair in pairs for sample in pair)
    difference = found.judged
    why = difference.why_not or (None if data.judged else "the protocol is too short for a ranking")

    def adjusted(p: float) -> float:
        return stats.holm([p, *others])[0]

    alone, verdict = ("NOT SHOWN" if why else _verdict(claim, difference, rule) for rule in (float, adjusted))
    even = len({len(sample) for pair in pairs for sample in pair}) == 1
    about = tuple(data.about[name] for name in (claim.a, claim.b) if name in data.about)
    return Judgement(
        claim,
        verdict,
        alone,
        found,
        tuple(backbones),
        replicates,
        len(others) + 1,
        None if difference.p is None else adjusted(difference.p),
        _needed(claim, found, replicates, len(pairs)) if alone == "NOT SHOWN" else None,
        why,
        even,
        about,
        data.test_split,
        data.schedule_kind,
    )


def _needed(claim: Claim, found: Uncertainty, replicates: int, backbones: int) -> int | None:
    """Return the replicates that would show such an effect for this pair alone."""
    effect, error = found.trainings.effect, found.trainings.standard_error
    margin = effect - claim.by if claim.sign == ">" else claim.by - abs(effect)
    if error is None or margin <= 0:
        return None
    images = found.images
    fixed = None if images.standard_error is None else (images.standard_error**2, images.degrees_of_freedom or 0)
    return stats.needed(margin, error * math.sqrt(replicates * backbones / 2), backbones, fixed=fixed)


def _verdict(claim: Claim, difference: Difference, adjusted: Callable[[float], float]) -> Verdict:
    """Judge by p at 5 %, which says the same as the 95 % interval where nothing is adjusted."""

    def beyond(margin: float) -> bool:
        p = difference.against(margin)
        assert p is not None
        return adjusted(p) < LEVEL

    if claim.sign == ">":
        ahead = difference.effect > claim.by
        return "NOT SHOWN" if not beyond(claim.by) else "SUPPORTED" if ahead else "CONTRADICTED"
    p = difference.equivalent(claim.by)
    assert p is not None
    if adjusted(p) < LEVEL:
        return "SUPPORTED"
    outside = abs(difference.effect) > claim.by and beyond(math.copysign(claim.by, difference.effect))
    return "CONTRADICTED" if outside else "NOT SHOWN"


def judge_entry(entry: Expected, table: pd.DataFrame) -> Judgement:
    """Judge an entry of a claims file on the board that it names.

    Raises:
        UnanswerableError: a source has no usable runs on this board, or both have them on too few backbones.
    """
    claim = parse(entry.claim)
    runs = on_split(one_board(table, entry.target, entry.protocol, entry.train_frac, entry.schedule), entry.test)
    judgement = judge(claim, samples(runs, claim.metric))
    if len(judgement.backbones) < entry.backbones:
        raise UnanswerableError(
            f"measured on {', '.join(judgement.backbones)} only; {entry.backbones} backbones are needed"
        )
    return judgement


def sentence(judgement: Judgement) -> str:
    """Format a judgement as one sentence."""
    difference, claim = judgement.found.judged, judgement.claim
    where = (
        f"on {judgement.backbones[0]}"
        if len(judgement.backbones) == 1
        else f"over {len(judgement.backbones)} backbones"
    )
    where += split_words(judgement.test_split) + schedule_words(judgement.schedule_kind)
    asked = f" ({claim.a} ~ {claim.b} within {claim.by:g})" if claim.sign == "~" else ""
    asked = f" (by {claim.by:g})" if claim.sign == ">" and claim.by else asked
    text = f"{verdict_words(judgement)}{asked}: {claim.a} is {abs(difference.effect):.4f} {METRICS[claim.metric]} "
    text += f"{'ahead of' if difference.effect >= 0 else 'behind'} {claim.b} {where}"
    text += _intervals(judgement.found)
    if difference.p is not None:
        text += f"; p of no difference {difference.p:.3g}"
        text += "" if judgement.pairs == 1 else f" alone, {judgement.p_adjusted:.3g} among all pairs"
        near = difference.equivalent(claim.by) if claim.sign == "~" else None
        text += "" if near is None else f", p of a larger one {near:.3g} alone"
    text += (
        f"; {judgement.replicates} replicates each"
        if judgement.even
        else f"; at least {judgement.replicates} replicates each"
    )
    if judgement.why:
        text += f". {judgement.why}"
    elif judgement.alone == "NOT SHOWN":
        toward = abs(difference.effect) < claim.by if claim.sign == "~" else difference.effect > claim.by
        more = f"about {judgement.needed}" if judgement.needed else f"more than {stats.MOST_REPLICATES}"
        text += f"; {more} would be needed" if toward else "; with this effect, more replicates would not show it"
    return ". ".join([text, *judgement.about])


def verdict_words(judgement: Judgement) -> str:
    """Format the two verdicts, such as "SUPPORTED alone, NOT SHOWN among all 15 pairs"."""
    if judgement.why or judgement.pairs == 1:
        return judgement.verdict
    among = f"among all {judgement.pairs} pairs"
    if judgement.alone == judgement.verdict:
        return f"{judgement.verdict} alone and {among}"
    return f"{judgement.alone} alone, {judgement.verdict} {among}"


def _intervals(found: Uncertainty) -> str:
    parts = {"trainings": found.trainings, "images": found.images, "both": found.both}
    spans = [
        f"over {name} {one.low:+.4f} to {one.high:+.4f}"
        for name, one in parts.items()
        if one.low is not None and one.high is not None
    ]
    return f", 95 % interval {', '.join(spans)}" if spans else ""
