"""Curves over sizes."""

import numpy as np
import pytest

from results.scaling import Verdict, curve, label_savings

SIZES = (10.0, 40.0, 160.0, 640.0, 2560.0)


def made(
    of: object, noise: float = 0.003, sizes: tuple[float, ...] = SIZES, n: int = 5, seed: int = 0
) -> dict[float, list[float]]:
    rng = np.random.default_rng(seed)
    return {size: (of(size) + rng.normal(0, noise, n)).tolist() for size in sizes}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("of", "verdict"),
    [
        (lambda x: 0.6 - 0.4 * x**-0.3, "still rising"),
        (lambda x: 0.5, "plateau"),
        (lambda x: 0.5 - 0.3 * x**-2.0, "plateau"),
        (lambda x: 0.5 - 0.02 * np.log(x), "non-monotone"),
    ],
)
def test_curves_of_a_known_kind(of: object, verdict: Verdict) -> None:
    verdicts = [curve(made(of, seed=seed), np.random.default_rng(0)).verdict for seed in range(20)]
    assert verdicts.count(verdict) >= 17, verdicts


def test_noise_is_no_trend_and_no_plateau() -> None:
    found = [curve(made(lambda x: 0.5, noise=0.1, seed=seed), np.random.default_rng(0)).verdict for seed in range(20)]
    assert set(found) <= {"unclear", "plateau", "non-monotone"}
    assert found.count("unclear") + found.count("plateau") >= 18


def test_the_power_law_is_found_again() -> None:
    found = curve(made(lambda x: 0.6 - 0.4 * x**-0.3, noise=1e-4), np.random.default_rng(0))
    assert found.at is not None
    assert found.fit is not None
    assert found.fit == pytest.approx(0.6 - 0.4 * found.at**-0.3, abs=2e-3)
    assert found.left_out is not None
    assert abs(found.left_out[0]) < 0.005 < abs(found.left_out[1])


def test_the_band_covers_the_curve() -> None:
    def of(x: float) -> float:
        return 0.6 - 0.4 * x**-0.4

    inside = []
    for seed in range(60):
        found = curve(made(of, noise=0.01, seed=seed), np.random.default_rng(seed), draws=300)
        assert found.at is not None
        assert found.low is not None
        assert found.high is not None
        there = found.at.searchsorted(300.0)
        inside.append(found.low[there] <= of(found.at[there]) <= found.high[there])
    assert np.mean(inside) > 0.85


def test_not_enough_points() -> None:
    three = curve(made(lambda x: 0.5, sizes=SIZES[:3]), np.random.default_rng(0))
    assert (three.verdict, three.fit) == ("not enough points", None)
    assert "3 sizes" in three.why
    two = curve(made(lambda x: 0.5, n=2), np.random.default_rng(0))
    assert two.verdict == "not enough points"


def test_label_savings_are_read_off_and_end_where_nothing_was_measured() -> None:
    without = made(lambda x: 0.2 + 0.1 * np.log10(x * 100), noise=0.002, sizes=(0.01, 0.1, 1.0))
    share, low, high = label_savings(without, [0.349, 0.35, 0.351], np.random.default_rng(0))
    assert share == pytest.approx(10**-0.5, rel=0.1)
    assert low is not None
    assert high is not None
    assert share is not None
    assert low < share < high
    assert label_savings(without, [0.6, 0.61, 0.6], np.random.default_rng(0)) == (None, None, None)


def test_no_interval_of_labels_and_no_verdict_from_replicates_that_agree() -> None:
    without = {0.01: [0.2], 0.1: [0.3], 1.0: [0.4]}
    share, low, high = label_savings(without, [0.35], np.random.default_rng(0))
    assert share == pytest.approx(10**-0.5)
    assert (low, high) == (None, None)
    same = {size: [0.1 * i] * 3 for i, size in enumerate(SIZES, start=1)}
    told = curve(same, np.random.default_rng(0))
    assert told.verdict == "unclear"
    assert "seeds had no effect" in told.why
