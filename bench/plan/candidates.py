"""The schedules that a short study tries: the default, then a scrambled Sobol sequence. Loads no Optuna."""

import math

import numpy as np
from scipy.stats import qmc

from bench.spec import Protocol
from bench.spec.parts import Range, Schedule
from pretrain_sources.hashing import derive_seed


def candidates(protocol: Protocol) -> list[Schedule]:
    """Return every schedule of a short study. They are the same for every cell, and those of Optuna's `QMCSampler`."""
    seed = derive_seed(protocol.seed, "candidates") % 2**32
    space = {name: values for name, values in protocol.search if values is not None}
    count = protocol.trials - 1
    # seed, not rng: only seed seeds the legacy generator that stored trials were drawn with
    points = qmc.Sobol(len(space), scramble=True, seed=seed).random_base2(count.bit_length())[:count]
    drawn = [
        protocol.default.model_copy(update={n: _value(space[n], share) for n, share in zip(space, point, strict=True)})
        for point in points.tolist()
    ]
    return [protocol.default, *drawn]


def _value(values: Range | tuple[str, ...], share: float) -> float | str:
    """Map a coordinate in [0, 1) to one of the choices, or into the range, below its upper end as in Optuna."""
    if isinstance(values, tuple):
        return values[int(share * len(values))]
    low, high = values.low, values.high
    if low == high:
        return low
    below = float(np.nextafter(high, high - 1))
    if values.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        return min(max(value, low), below)
    return min(low + share * (high - low), below)
