"""Scaling curves."""

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
def test_verdicts_on_synthetic_curves(of: object, verdict: Verdict) -> None:
    verdicts = [curve(made(of, seed=seed), np.random.default_rng(0)).verdict for seed in range(20)]
    assert verdicts.count(verdict) >= 17, verdicts


def test_a_curve_that_has_flattened_is_not_still_rising() -> None:
    """Means of 0.20, 0.248, 0.25, 0.25: an audit found it called still rising, by +0.0000."""
    for noise in (1e-4, 1e-3, 3e-3):
        for seed in range(10):
            rng = np.random.default_rng(seed)
            means = zip((10.0, 40.0, 160.0, 640.0), (0.20, 0.248, 0.25, 0.25), strict=True)
            flat = curve({size: (mean + rng.normal(0, noise, 5)).tolist() for size, mean in means}, rng)
            assert flat.verdict in ("plateau", "saturated within the range", "unclear"), (noise, seed, flat.why)
            assert noise > 1e-3 or flat.verdict != "unclear"


def test_a_small_but_sure_gain_is_saturated_within_the_range() -> None:
    made_of = [
        curve(made(lambda x: 0.5 - 0.05 * x**-0.15, noise=2e-4, seed=seed), np.random.default_rng(0))
        for seed in range(10)
    ]
    assert {one.verdict for one in made_of} <= {"plateau", "saturated within the range"}
    assert all(one.doubling is not None and one.doubling[0] < 0.005 for one in made_of)


def test_noise_gives_no_trend() -> None:
    verdicts = [
        curve(made(lambda x: 0.5, noise=0.1, seed=seed), np.random.default_rng(0)).verdict for seed in range(20)
    ]
    assert set(verdicts) <= {"unclear", "plateau", "non-monotone"}
    assert verdicts.count("unclear") + verdicts.count("plateau") >= 18


def test_power_law_is_recovered() -> None:
    fitted = curve(made(lambda x: 0.6 - 0.4 * x**-0.3, noise=1e-4), np.random.default_rng(0))
    assert fitted.at is not None
    assert fitted.fit is not None
    assert fitted.fit == pytest.approx(0.6 - 0.4 * fitted.at**-0.3, abs=2e-3)
    assert fitted.left_out is not None
    assert abs(fitted.left_out[0]) < 0.005 < abs(fitted.left_out[1])


def test_band_covers_the_curve() -> None:
    def of(x: float) -> float:
        return 0.6 - 0.4 * x**-0.4

    inside = []
    for seed in range(60):
        fitted = curve(made(of, noise=0.01, seed=seed), np.random.default_rng(seed), draws=300)
        assert fitted.at is not None
        assert fitted.low is not None
        assert fitted.high is not None
        there = fitted.at.searchsorted(300.0)
        inside.append(fitted.low[there] <= of(fitted.at[there]) <= fitted.high[there])
    assert np.mean(inside) > 0.85


def test_not_enough_points() -> None:
    three = curve(made(lambda x: 0.5, sizes=SIZES[:3]), np.random.default_rng(0))
    assert (three.verdict, three.fit) == ("not enough points", None)
    assert "3 sizes" in three.why
    two = curve(made(lambda x: 0.5, n=2), np.random.default_rng(0))
    assert two.verdict == "not enough points"


def test_label_savings_are_interpolated_within_the_measured_range() -> None:
    without = made(lambda x: 0.2 + 0.1 * np.log10(x * 100), noise=0.002, sizes=(0.01, 0.1, 1.0))
    share, low, high = label_savings(without, [0.349, 0.35, 0.351], np.random.default_rng(0))
    assert share == pytest.approx(10**-0.5, rel=0.1)
    assert low is not None
    assert high is not None
    assert share is not None
    assert low < share < high
    assert label_savings(without, [0.6, 0.61, 0.6], np.random.default_rng(0)) == (None, None, None)


def test_identical_replicates_give_no_interval_and_no_verdict() -> None:
    without = {0.01: [0.2], 0.1: [0.3], 1.0: [0.4]}
    share, low, high = label_savings(without, [0.35], np.random.default_rng(0))
    assert share == pytest.approx(10**-0.5)
    assert (low, high) == (None, None)
    same = {size: [0.1 * i] * 3 for i, size in enumerate(SIZES, start=1)}
    flat = curve(same, np.random.default_rng(0))
    assert flat.verdict == "unclear"
    assert "seeds had no effect" in flat.why
