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
