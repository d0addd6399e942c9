"""Statistics over replicates and groups of test images: pure functions from arrays to numbers."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MIN_REPLICATES = 3  # a t-interval of fewer is too wide to be useful
LEVEL = 0.95
MOST_REPLICATES = 1000  # upper limit of the search in `needed`

Floats = NDArray[np.float64]
AGREE = "replicates are identical: their seeds had no effect"
FEW = f"no interval under {MIN_REPLICATES} replicates"


@dataclass(frozen=True)
class Interval:
    """A two-sided interval of a mean, or why there is none."""

    low: float | None
    high: float | None
    why_not: str | None = None


@dataclass(frozen=True)
class Difference:
    """Difference of two sources, with its uncertainty.

    Attributes:
        effect: mean of the first minus mean of the second, averaged over backbones. standard_error: of the effect.
            degrees_of_freedom: Welch-Satterthwaite. low, high: interval of the effect. p: two-sided, of no difference.
            minimum_detectable_effect: with a power of 80 %, from such data. why_not: why all but the effect are None.
    """

    effect: float
    standard_error: float | None = None
    degrees_of_freedom: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    minimum_detectable_effect: float | None = None
    why_not: str | None = None

    def turned(self) -> "Difference":
        """Return second minus first."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, effect=-self.effect, low=low, high=high)

    def against(self, margin: float) -> float | None:
        """Return the two-sided p of an effect that is `margin`; None without an interval."""
        if self.standard_error is None or self.degrees_of_freedom is None:
            return None
        return min(1.0, 2 * _tail(self.degrees_of_freedom, abs(self.effect - margin) / self.standard_error))

    def equivalent(self, within: float) -> float | None:
        """Return p of two one-sided t-tests (Schuirmann 1987) for an effect in (-within, within); None without an interval."""
        if self.standard_error is None or self.degrees_of_freedom is None:
            return None
        above = _tail(self.degrees_of_freedom, (self.effect + within) / self.standard_error)
        below = _tail(self.degrees_of_freedom, (within - self.effect) / self.standard_error)
        return max(above, below)


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of (R,) replicate scores, R >= 1."""
    return math.fsum(values) / len(values)


def difference(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], level: float = LEVEL) -> Difference:
    """Compare replicate scores (R_1,) and (R_2,) per backbone, first minus second; Welch's t-test for one backbone.

    The effect is the mean of the differences per backbone; its variance is the sum of all s^2 / R over the squared number of
    backbones, with degrees of freedom after Satterthwaite (Biometrics 1946). Backbones have equal weights.
    """
    samples = [sample for pair in pairs for sample in pair]
    effect = math.fsum(mean(a) - mean(b) for a, b in pairs) / len(pairs)
    if min(map(len, samples)) < MIN_REPLICATES:
        return Difference(effect, why_not=FEW)
    if any(len(set(sample)) == 1 for sample in samples):
        return Difference(effect, why_not=AGREE)
    error, dof = added([(_variance(sample) / len(sample), len(sample) - 1) for sample in samples])
    return t_difference(effect, error / len(pairs), dof, level)


def added(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return (standard error, degrees of freedom) of a sum. parts: (variance, degrees of freedom) of its independent terms.

    Degrees of freedom after Satterthwaite (Biometrics 1946).
    """
    total = math.fsum(variance for variance, _ in parts)
    return math.sqrt(total), total**2 / math.fsum(variance**2 / dof for variance, dof in parts)


def t_difference(effect: float, error: float, dof: float, level: float = LEVEL) -> Difference:
    """Return an effect with the t-interval, p and minimum detectable effect of its standard error and degrees of freedom."""
    half = _critical(dof, level) * error
    p = min(1.0, 2 * _tail(dof, abs(effect) / error))
    least = _noncentrality(dof, level, power=0.8) * error
    return Difference(effect, error, dof, effect - half, effect + half, p, least)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return (M,) p-values adjusted for the family-wise error rate (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted


def expected_best(scores: Sequence[float], trials: int) -> float:
    """Return the expected best of `trials` draws with replacement from (T,) trials (Dodge et al., EMNLP 2019)."""
    ordered = np.sort(np.asarray(scores, float))
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(ordered @ np.diff(steps**trials))


@functools.cache
def expected_maximum(count: int) -> float:
    """Return the expected maximum of `count` independent standard normal values (Tippett, Biometrika 1925).

    The integral of x * count * phi(x) * Phi(x)^(count - 1): x over the density of the maximum.
    """
    from scipy.special import ndtr

    x, step = np.linspace(-12, 12, 24_001, retstep=True)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return float((x * count * density * ndtr(x) ** (count - 1)).sum() * step)


@functools.cache
def detectable(replicates: int, backbones: int = 1, power: float = 0.8, level: float = LEVEL) -> float | None:
    """Return the minimum detectable difference of two sources, in standard deviations of a replicate.

    For the test of `difference`, with `replicates` normal runs of equal variance per source and backbone. The power is averaged
    over sample variances, because Satterthwaite's degrees of freedom depend on them: the textbook's 2 (R - 1) is a tenth too
    optimistic for three replicates. None for one replicate, which has no variance.
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


def needed(
    effect: float,
    deviation: float,
    backbones: int = 1,
    most: int = MOST_REPLICATES,
    fixed: tuple[float, float] | None = None,
) -> int | None:
    """Return the replicates per source that detect an effect with a power of 80 %; None if more than `most`.

    deviation: standard deviation of a replicate. fixed: (variance, degrees of freedom) over images, which no replicate lowers.
    """
    if not effect or not deviation:
        return None

    def least(replicates: int) -> float:
        if fixed is None:
            return (detectable(replicates, backbones) or math.inf) * deviation
        trainings = 2 * deviation**2 / (replicates * backbones)
        error, dof = added([(trainings, 2 * backbones * (replicates - 1)), fixed])
        return _noncentrality(dof, LEVEL, power=0.8) * error

    low, high = 2, most  # bisection: the detectable effect decreases with replicates
    if least(most) > abs(effect):
        return None
    while low < high:
        middle = (low + high) // 2
        if least(middle) <= abs(effect):
            high = middle
        else:
            low = middle + 1
    return max(low, MIN_REPLICATES)


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return Student's t-interval of the mean of (R,) replicate scores: mean +- t(R-1) * s / sqrt(R).

    None for fewer than three replicates, and for identical ones: the seed was not used, so a zero width would be misleading.
    """
    n = len(values)
    if n < MIN_REPLICATES:
        return Interval(None, None, FEW)
    if len(set(values)) == 1:  # not "variance == 0": the mean of equal numbers may be off by one bit
        return Interval(None, None, AGREE)
    half = _critical(n - 1, level) * math.sqrt(_variance(values) / n)
    return Interval(mean(values) - half, mean(values) + half)


def _variance(values: Sequence[float]) -> float:
    centre = mean(values)
    return math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1)


def _critical(dof: float, level: float) -> float:
    from scipy.special import stdtrit  # scipy.stats takes seconds to import

    return float(stdtrit(dof, 0.5 + level / 2))


def _tail(dof: float, t: float) -> float:
    """Return the upper tail probability of Student's t."""
    from scipy.special import stdtr

    return float(stdtr(dof, -t))


def _noncentrality(dof: float, level: float, power: float) -> float:
    """Return the noncentrality at which a two-sided t-test has this power."""
    from scipy.special import nctdtrinc

    return float(nctdtrinc(dof, 1 - power, _critical(dof, level)))
