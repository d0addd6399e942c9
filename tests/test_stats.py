import numpy as np
import pytest
from scipy import stats as reference

from results import stats
from results.stats import difference, t_interval


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
def test_identical_replicates_have_no_interval(value: float) -> None:
    interval = t_interval([value] * 3)
    assert interval.low is None
    assert "seeds had no effect" in str(interval.why_not)


def draw(seed: int, n: int, mean: float = 0.5) -> list[float]:
    return np.random.default_rng(seed).normal(mean, 0.02, n).tolist()


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 5), (3, 7), (10, 4)])
def test_one_backbone_is_welch_s_test(n: int, m: int) -> None:
    a, b = draw(1, n, 0.52), draw(2, m)
    expected = reference.ttest_ind(a, b, equal_var=False)
    low, high = expected.confidence_interval()
    result = difference([(a, b)])
    assert (result.p, result.degrees_of_freedom) == pytest.approx((expected.pvalue, expected.df))
    assert (result.low, result.high) == pytest.approx((low, high))
    assert result.effect == pytest.approx(np.mean(a) - np.mean(b))


def test_pooled_over_backbones_by_hand() -> None:
    pairs = [(draw(i, 5, 0.5 + i / 10), draw(i + 9, 4, 0.4 + i / 10)) for i in range(3)]
    parts = [(np.var(s, ddof=1) / len(s), len(s) - 1) for pair in pairs for s in pair]
    error = np.sqrt(sum(v for v, _ in parts)) / 3
    freedom = sum(v for v, _ in parts) ** 2 / sum(v**2 / f for v, f in parts)
    effect = np.mean([np.mean(a) - np.mean(b) for a, b in pairs])
    result = difference(pairs)
    assert (result.effect, result.standard_error, result.degrees_of_freedom) == pytest.approx((effect, error, freedom))
    assert result.p == pytest.approx(2 * reference.t.sf(abs(effect) / error, freedom))
    assert (result.low, result.high) == pytest.approx(reference.t.interval(0.95, freedom, effect, error))


def test_two_one_sided_tests_agree_with_scipy() -> None:
    a, b = draw(1, 6, 0.505), draw(2, 6)
    for within in (0.01, 0.03, 0.1):
        below = reference.ttest_ind(np.array(a) + within, b, equal_var=False, alternative="greater").pvalue
        above = reference.ttest_ind(np.array(a) - within, b, equal_var=False, alternative="less").pvalue
        assert difference([(a, b)]).equivalent(within) == pytest.approx(max(below, above))


def test_holm_by_its_definition() -> None:
    ps = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert stats.holm(ps) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert stats.holm([]) == []
    shuffled = np.random.default_rng(0).permutation(5)
    assert np.array(stats.holm(ps))[shuffled] == pytest.approx(stats.holm([ps[i] for i in shuffled]))


@pytest.mark.parametrize("pair", [([0.1, 0.2], [0.1, 0.2, 0.3]), ([0.3] * 4, [0.1, 0.2, 0.3]), ([0.3] * 3, [0.3] * 3)])
def test_missing_interval_has_a_reason(pair: tuple[list[float], list[float]]) -> None:
    result = difference([pair])
    assert result.why_not
    assert {result.low, result.high, result.p, result.standard_error, result.minimum_detectable_effect} == {None}
    assert result.equivalent(0.1) is None


def test_detectable_effect_has_a_power_of_80_percent() -> None:
    rng = np.random.default_rng(3)
    for n, backbones in ((3, 1), (5, 2)):
        effect = stats.detectable(n, backbones)
        assert effect is not None
        detected = []
        for _ in range(1500):
            pairs = [(rng.normal(effect, 1, n).tolist(), rng.normal(0, 1, n).tolist()) for _ in range(backbones)]
            p = difference(pairs).p
            detected.append(p is not None and p < 0.05)
        assert 0.76 < np.mean(detected) < 0.84
    assert stats.detectable(1) is None


def test_needed_is_the_smallest_sufficient_number() -> None:
    for effect in (0.005, 0.02, 0.05):
        n = stats.needed(effect, 0.01)
        assert n is not None
        assert (stats.detectable(n) or 9) * 0.01 <= effect
        assert n == 3 or (stats.detectable(n - 1) or 9) * 0.01 > effect
    assert stats.needed(1e-6, 0.01) is None
    assert stats.needed(0.0, 0.01) is None


def test_expected_best_by_enumeration() -> None:
    scores = [0.1, 0.5, 0.3]
    both = [max(a, b) for a in scores for b in scores]
    assert stats.expected_best(scores, 2) == pytest.approx(np.mean(both))
    assert stats.expected_best(scores, 1) == pytest.approx(0.3)
