"""Statistics over replicates, and over groups of test images: arrays in, numbers out. Nothing here knows a store or a name."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_REPLICATES = 3  # below this a t-interval is too wide to mean anything
LEVEL = 0.95
MOST_REPLICATES = 1000  # beyond these nobody will run them

Floats = NDArray[np.float64]
AGREE = "replicates agree exactly: their seeds had no effect"
FEW = f"no interval under {MIN_REPLICATES} replicates"


@dataclass(frozen=True)
class Interval:
    """A two-sided interval for a mean, or the reason why there is none."""

    low: float | None
    high: float | None
    why_not: str | None = None


@dataclass(frozen=True)
class Difference:
    """How much two sources differ, and how surely.

    Attributes:
        effect: mean of the first minus mean of the second, the mean over backbones. standard_error: of the effect.
            degrees_of_freedom: Welch's or Satterthwaite's. low, high: interval of the effect. p: two-sided, of no difference.
            minimum_detectable_effect: with a power of 80 %, from data such as this. why_not: why all but the effect are None.
    """

    effect: float
    standard_error: float | None = None
    degrees_of_freedom: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    minimum_detectable_effect: float | None = None
    why_not: str | None = None

    def equivalent(self, within: float) -> float | None:
        """p of two one-sided t-tests (Schuirmann 1987) that the effect lies in (-within, within); None without an interval."""
        if self.standard_error is None or self.degrees_of_freedom is None:
            return None
        above = _tail(self.degrees_of_freedom, (self.effect + within) / self.standard_error)
        below = _tail(self.degrees_of_freedom, (within - self.effect) / self.standard_error)
        return max(above, below)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of (R,) replicate scores, R >= 1."""
    return math.fsum(values) / len(values)


def difference(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], level: float = LEVEL) -> Difference:
    """First minus second, from replicate scores (R_1,), (R_2,) of each backbone; one backbone is Welch's t-test.

    The mean of the backbones' differences, its variance the sum of all s^2 / R over the squared number of backbones, degrees
    of freedom after Satterthwaite (Biometrics 1946). Backbones weigh the same, however many replicates they have.
    """
    samples = [sample for pair in pairs for sample in pair]
    effect = math.fsum(mean(a) - mean(b) for a, b in pairs) / len(pairs)
    if min(map(len, samples)) < MIN_REPLICATES:
        return Difference(effect, why_not=FEW)
    if any(len(set(sample)) == 1 for sample in samples):
        return Difference(effect, why_not=AGREE)
    parts = [_variance(sample) / len(sample) for sample in samples]
    dof = math.fsum(parts) ** 2 / math.fsum(v**2 / (len(s) - 1) for v, s in zip(parts, samples, strict=True))
    error = math.sqrt(math.fsum(parts)) / len(pairs)
    half = _critical(dof, level) * error
    p = min(1.0, 2 * _tail(dof, abs(effect) / error))
    least = _noncentrality(dof, level, power=0.8) * error
    return Difference(effect, error, dof, effect - half, effect + half, p, least)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p of (M,) tests (Holm, Scandinavian Journal of Statistics 1979): the family-wise error rate is held."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted


def expected_best(scores: Sequence[float], trials: int) -> float:
    """Expected best of `trials` draws from (T,) trials of random search, drawn with replacement (Dodge et al., EMNLP 2019)."""
    ordered = np.sort(np.asarray(scores, float))
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(ordered @ np.diff(steps**trials))


@functools.cache
def detectable(replicates: int, backbones: int = 1, power: float = 0.8, level: float = LEVEL) -> float | None:
    """The smallest difference of two sources, in standard deviations of a replicate, that a plan finds with this power.

    By the test of `difference`, with `replicates` runs of each source on each backbone, normal and of equal variance. How
    often an effect is found is averaged over sample variances: Satterthwaite's degrees of freedom vary with them, and for three
    replicates the textbook's 2 (R - 1) promises a tenth too much. None for one replicate, which has no variance.
    """
    if replicates < 2:
        return None
    from scipy.optimize import brentq
    from scipy.special import ndtr, stdtrit

    drawn = np.random.default_rng(0).chisquare(replicates - 1, (20_000, 2 * backbones)) / (replicates - 1)
    dof = drawn.sum(1) ** 2 / (drawn**2).sum(1) * (replicates - 1)
    critical = stdtrit(dof, 0.5 + level / 2) * np.sqrt(drawn.mean(1))  # in true standard errors

    def short(effect: float) -> float:
        return float((ndtr(effect - critical) + ndtr(-effect - critical)).mean()) - power

    return float(brentq(short, 0, 100)) * math.sqrt(2 / (replicates * backbones))


def needed(effect: float, deviation: float, backbones: int = 1, most: int = MOST_REPLICATES) -> int | None:
    """Replicates of each source with which an effect this large is found in 80 % of experiments; None for more than `most`.

    deviation: the standard deviation of a replicate.
    """
    if not effect or not deviation:
        return None
    low, high = 2, most  # the detectable effect falls with every replicate
    if (detectable(most, backbones) or math.inf) * deviation > abs(effect):
        return None
    while low < high:
        middle = (low + high) // 2
        if (detectable(middle, backbones) or math.inf) * deviation <= abs(effect):
            high = middle
        else:
            low = middle + 1
    return max(low, MIN_REPLICATES)


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's t-interval for the mean of (R,) replicate scores: mean +- t(R-1) * s / sqrt(R).

    None for fewer than three replicates, and for replicates that agree exactly: that is a seed that was not used, and
    an interval of 0.0 would be a false certainty.
    """
    n = len(values)
    if n < MIN_REPLICATES:
        return Interval(None, None, FEW)
    if len(set(values)) == 1:  # not "variance == 0": a mean of equal numbers may be off by the last bit
        return Interval(None, None, AGREE)
    half = _critical(n - 1, level) * math.sqrt(_variance(values) / n)
    return Interval(mean(values) - half, mean(values) + half)


def resample(groups: int, draws: int, rng: np.random.Generator) -> Floats:
    """(draws, groups): how often each group of images is in each bootstrap sample of as many groups."""
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64)


def percentiles(draws: Floats, units: int, level: float = LEVEL) -> tuple[float, float]:
    """The expanded percentile interval of (D,) bootstrap draws from so many units (Hesterberg, American Statistician 2015).

    Plain percentiles are too narrow for few units: as narrow as a normal interval with the variance over n instead of n - 1.
    NaN draws (no class was in the sample) do not count.
    """
    from scipy.special import ndtr

    outside = float(ndtr(-math.sqrt(units / (units - 1)) * _critical(units - 1, level)))
    low, high = np.nanquantile(draws, [outside, 1 - outside])
    return float(low), float(high)


def _variance(values: Sequence[float]) -> float:
    centre = mean(values)
    return math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1)


def _critical(dof: float, level: float) -> float:
    from scipy.special import stdtrit  # scipy.stats takes seconds to import

    return float(stdtrit(dof, 0.5 + level / 2))


def _tail(dof: float, t: float) -> float:
    """Probability that Student's t is above."""
    from scipy.special import stdtr

    return float(stdtr(dof, -t))


def _noncentrality(dof: float, level: float, power: float) -> float:
    """Of the t that a two-sided test finds with this power."""
    from scipy.special import nctdtrinc

    return float(nctdtrinc(dof, 1 - power, _critical(dof, level)))
