"""Uncertainty of a difference over trainings and test images together: crossed random effects.

Trainings and groups of images are both drawn at random and cross: every run is scored on every group. The variance of a difference
is that over trainings (Welch's) plus that over groups (delete-one-group jackknife). Each of the two contains the interaction of run
and group, which so counts twice; the interval is a little wide for it, as Owen's pigeonhole bootstrap is (Annals of Applied
Statistics 2007). Degrees of freedom are Satterthwaite's (Biometrics 1946). Where groups nest in few larger ones, it is too narrow:
`tests/benchmarks/calibration.py` says by how much.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from results import stats
from results.image_bootstrap import LEAST_GROUPS, Counts
from results.stats import Difference

Pairs = Sequence[tuple[Sequence[Counts], Sequence[Counts]]]  # the runs of both sources on each backbone


def over_both(trainings: Difference, pairs: Pairs, metric: str) -> Difference:
    """Return the difference with its interval over trainings and groups of images. trainings: that over trainings alone."""
    if trainings.standard_error is None or trainings.degrees_of_freedom is None:
        return trainings
    groups = len(pairs[0][0][0].groups)
    if groups < LEAST_GROUPS:
        why = f"{groups} groups of test images are too few for an interval over images"
        return replace(Difference(trainings.effect), why_not=why)
    variance = jackknife(pairs, metric)
    if not variance > 0:
        return replace(Difference(trainings.effect), why_not="the difference is the same in every group of test images")
    parts = [(trainings.standard_error**2, trainings.degrees_of_freedom), (variance, groups - 1)]
    total = math.fsum(part for part, _ in parts)
    freedom = total**2 / math.fsum(part**2 / dof for part, dof in parts)
    return stats.t_difference(trainings.effect, math.sqrt(total), freedom)


def jackknife(pairs: Pairs, metric: str) -> float:
    """Return the variance of the mean difference over G groups of images: (G - 1) / G * sum (d_without_g - mean)^2.

    Efron and Stein, Annals of Statistics 1981. NaN if some class occurs in one group alone, whose removal leaves no score.
    """
    count = len(pairs[0][0][0].groups)
    weights = np.ones((count, count)) - np.eye(count)
    without = np.mean([_mean(a, weights, metric) - _mean(b, weights, metric) for a, b in pairs], axis=0)
    return float((count - 1) / count * ((without - without.mean()) ** 2).sum())


def _mean(runs: Sequence[Counts], weights: stats.Floats, metric: str) -> stats.Floats:
    total: stats.Floats = np.mean([run.draws(weights, metric) for run in runs], axis=0)
    return total
