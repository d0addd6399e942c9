"""Statistics over replicates: arrays in, numbers out; the axis is always the replicate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_REPLICATES = 3  # below this a t-interval is too wide to mean anything


@dataclass(frozen=True)
class Interval:
    """A two-sided interval for a mean, or the reason why there is none."""

    low: float | None
    high: float | None
    why_not: str | None = None


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of (R,) replicate scores, R >= 1."""
    return math.fsum(values) / len(values)


def detectable(replicates: int, backbones: int = 1, power: float = 0.8, level: float = 0.95) -> float | None:
    """The smallest difference of two sources, in standard deviations of a replicate, that a plan finds with this power.

    Two-sided t-test of the mean difference over backbones, `replicates` runs of each source on each, equal variances: the
    noncentrality of t with 2 (R - 1) B degrees of freedom that is significant so often, times sqrt(2 / (R B)). None for one
    replicate, which has no variance.
    """
    if replicates < 2:
        return None
    from scipy.special import nctdtrinc, stdtrit  # scipy.stats takes seconds to import

    freedom = 2 * (replicates - 1) * backbones
    critical = float(stdtrit(freedom, 0.5 + level / 2))
    return float(nctdtrinc(freedom, 1 - power, critical)) * math.sqrt(2 / (replicates * backbones))


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t-interval for the mean of (R,) replicate scores: mean +- t(R-1) * s / sqrt(R).

    None for fewer than three replicates, and for replicates that agree exactly: that is a seed that was not used, and
    an interval of 0.0 would be a false certainty.
    """
    n = len(values)
    if n < MIN_REPLICATES:
        return Interval(None, None, f"no interval under {MIN_REPLICATES} replicates")
    if len(set(values)) == 1:  # not "variance == 0": a mean of equal numbers may be off by the last bit
        return Interval(None, None, "replicates agree exactly: their seeds had no effect")
    centre = mean(values)
    variance = math.fsum((v - centre) ** 2 for v in values) / (n - 1)
    from scipy.special import stdtrit  # scipy.stats takes seconds to import

    half = float(stdtrit(n - 1, 0.5 + level / 2)) * math.sqrt(variance / n)
    return Interval(centre - half, centre + half)
