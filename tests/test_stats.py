import numpy as np
import pytest
from scipy import stats as reference

from results.stats import t_interval


def test_agrees_with_scipy() -> None:
    values = [0.31, 0.35, 0.29, 0.33, 0.36]
    expected = reference.t.interval(0.95, 4, np.mean(values), reference.sem(values))
    interval = t_interval(values)
    assert (interval.low, interval.high) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [0.3], [0.3, 0.4]])
def test_no_interval_under_three_replicates(values: list[float]) -> None:
    interval = t_interval(values)
    assert interval.low is None
    assert interval.high is None
    assert "3 replicates" in str(interval.why_not)


@pytest.mark.parametrize("value", [0.1, 0.193, 0.2, 0.3, 0.35])
def test_an_interval_of_zero_is_refused(value: float) -> None:
    interval = t_interval([value] * 3)
    assert interval.low is None
    assert "seeds had no effect" in str(interval.why_not)
