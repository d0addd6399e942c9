"""Whether the intervals and tests of `results.stats` keep what they promise, where the truth is known. JSON lines.

python tests/benchmarks/calibration.py [EXPERIMENTS]    default: 10000
"""

import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from results import stats  # noqa: E402
from results.over_images import LEAST_GROUPS, Counts, cell, variance  # noqa: E402
from results.stats import Difference  # noqa: E402
from results.uncertainty import Uncertainty, uncertain  # noqa: E402

REPLICATES = (3, 5, 10)
SOURCES = 5  # of a family of pairs
BACKBONES = (1, 3)
GROUPS = (20, 60)


def result(what: str, value: float, aim: tuple[float, float] | None, **facts: object) -> None:
    row = {"what": what, **facts, "value": round(value, 4), "aim": aim}
    print(json.dumps(row | {"ok": None if aim is None else aim[0] <= value <= aim[1]}), flush=True)


def replicates(experiments: int, rng: np.random.Generator) -> None:
    """Normal replicates; the two sources' spreads differ by a factor of up to two."""
    for backbones in BACKBONES:
        for n in REPLICATES:
            covered, alarms, found = 0, 0, 0
            effect = stats.detectable(n, backbones)
            assert effect is not None
            for _ in range(experiments):
                spread = rng.uniform(0.7, 1.4, (backbones, 2))
                a, b = (rng.normal(0, spread[:, i, None], (backbones, n)) for i in (0, 1))
                one = stats.difference([(x.tolist(), y.tolist()) for x, y in zip(a, b, strict=True)])
                assert one.low is not None
                assert one.high is not None
                assert one.p is not None
                covered += one.low <= 0 <= one.high
                alarms += one.p < 0.05
                c, d = rng.normal(effect, 1, (backbones, n)), rng.normal(0, 1, (backbones, n))
                other = stats.difference([(x.tolist(), y.tolist()) for x, y in zip(c, d, strict=True)])
                assert other.p is not None
                found += other.p < 0.05
            facts = {"replicates": n, "backbones": backbones}
            result("95 % interval covers", covered / experiments, (0.93, 0.97), **facts)
            result("false positives at 5 %", alarms / experiments, (0, 0.06), **facts)
            result("stated detectable effect is found", found / experiments, (0.75, 0.85), **facts)


def families(experiments: int, rng: np.random.Generator) -> None:
    """No source differs from another: how often is any pair of them called different?"""
    for n in REPLICATES:
        wrong = 0
        for _ in range(experiments // 4):
            scores = rng.normal(0, 1, (SOURCES, n)).tolist()
            ps = [stats.difference([(a, b)]).p for a, b in combinations(scores, 2)]
            wrong += min(stats.holm([p for p in ps if p is not None])) < 0.05
        result("Holm's family-wise rate at 5 %", wrong / (experiments // 4), (0, 0.06), replicates=n, sources=SOURCES)


def skewed(experiments: int, rng: np.random.Generator) -> None:
    """Replicates that now and then fail: a limit, no promise."""
    for n in REPLICATES:
        covered = 0
        for _ in range(experiments):
            a, b = -rng.lognormal(0, 1, n), rng.normal(0, 1, n)
            one = stats.difference([(a.tolist(), b.tolist())])
            assert one.low is not None
            assert one.high is not None
            covered += one.low <= -float(np.exp(0.5)) <= one.high
        result("95 % interval covers, one source log-normal", covered / experiments, None, replicates=n)


def images(experiments: int, rng: np.random.Generator) -> None:
    """Groups of images that are alike: both sources share the groups' difficulty, and each has its own."""
    for groups in GROUPS:
        covered = {"miou": 0, "weighted_f": 0}
        times = max(1000, experiments // 5)
        for _ in range(times):
            shared = rng.normal(0, 0.1, groups)
            runs = [[_counts(shared + rng.normal(mean, 0.05, groups), rng)] for mean in (0.6, 0.55)]
            for metric in covered:
                found = over_all(
                    [(runs[0], runs[1])], Difference(score(runs[0], metric) - score(runs[1], metric)), metric
                ).images
                assert found.low is not None
                assert found.high is not None
                covered[metric] += found.low <= 0.05 <= found.high
        for metric, count in covered.items():
            result("95 % interval over image groups covers", count / times, (0.93, 0.97), groups=groups, metric=metric)
    assert min(GROUPS) >= LEAST_GROUPS


def over_all(pairs: list[tuple[list[Counts], list[Counts]]], trainings: Difference, metric: str) -> Uncertainty:
    return uncertain(trainings, variance([(cell(a, metric), cell(b, metric)) for a, b in pairs]))


def score(runs: list[Counts], metric: str) -> float:
    return float(np.mean([run.weighted(np.ones((1, len(run.groups))), metric)[0] for run in runs]))


LEGS, DATES, RUNS = 9, 2, 5
SPREADS = {
    "images 25 %": 0.5,
    "images 50 %": 1.0,
    "images 75 %": 1.7,
}  # sd over groups, where that of a run's mean is 1


def crossed(experiments: int, rng: np.random.Generator) -> None:
    """Runs and groups of images both vary: does the interval over both cover the difference of the populations?

    Each source has its own run effects, group effects and their interaction; in the nested case groups of a date share half of
    the variance between groups, and there are two dates, as in hit-uav.
    """
    times = max(2000, experiments // 4)
    for name, spread in SPREADS.items():
        for nested in (False, True):
            covered = dict.fromkeys(("trainings", "images", "both"), 0)
            false = 0
            for _ in range(times):
                scores = [_scores(0.02 * spread, nested, rng) for _ in range(2)]
                runs = [[_counts(0.5 + row, rng) for row in one] for one in scores]
                pair = [(runs[0], runs[1])]
                alone = stats.difference([tuple(one.mean(1).tolist() for one in scores)])
                found = over_all(pair, alone, "miou")
                for what in covered:
                    one = getattr(found, what)
                    covered[what] += one.low <= 0 <= one.high
                assert found.both.p is not None
                false += found.both.p < 0.05
            facts = {"share of variance": name, "nested in two dates": nested, "replicates": RUNS, "groups": LEGS}
            for what, count in covered.items():
                aim = (0.93, 0.97) if what == "both" and not nested else None
                result(f"95 % interval over {what} covers", count / times, aim, **facts)
            result("false positives at 5 %, over both", false / times, None if nested else (0, 0.07), **facts)


def verdicts(experiments: int, rng: np.random.Generator) -> None:
    """Five sources that do not differ, scored on the same groups: how often is a pair called different, alone and among all?"""
    times = max(1000, experiments // 10)
    for nested in (False, True):
        alone, among, any_alone = 0, 0, 0
        for _ in range(times):
            shared = _scores(0.02, nested, rng).mean(0)  # groups are as hard for every source
            runs = [[_counts(0.5 + shared + row, rng) for row in _scores(0.02, nested, rng)] for _ in range(SOURCES)]
            ps = []
            for a, b in combinations(runs, 2):
                trainings = stats.difference([tuple([score([run], "miou") for run in side] for side in (a, b))])  # type: ignore[list-item]
                p = over_all([(a, b)], trainings, "miou").judged.p
                assert p is not None
                ps.append(p)
            alone += ps[0] < 0.05
            any_alone += min(ps) < 0.05
            among += min(stats.holm(ps)) < 0.05
        facts = {"sources": SOURCES, "nested in two dates": nested, "replicates": RUNS, "groups": LEGS}
        result("a pair is SUPPORTED alone", alone / times, None if nested else (0, 0.06), **facts)
        result("some pair of all is SUPPORTED alone", any_alone / times, None, **facts)
        result("some pair is SUPPORTED among all", among / times, None if nested else (0, 0.06), **facts)


def _scores(between: float, nested: bool, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw (runs, groups) scores of a source around 0. between: sd of the mean over the groups, next to 0.02 of that over runs."""
    run = rng.normal(0, 0.02 * np.sqrt(RUNS), (RUNS, 1))
    scale = between * np.sqrt(LEGS)
    group = rng.normal(0, scale, (1, LEGS))
    if nested:
        date = rng.normal(0, scale / np.sqrt(2), DATES)
        group = group / np.sqrt(2) + date[np.arange(LEGS) % DATES]
    return run + group + rng.normal(0, 0.02, (RUNS, LEGS))


def _counts(quality: NDArray[np.float64], rng: np.random.Generator) -> Counts:
    """One class; each group has some images, of which a share `quality` is hit, and no false pixels: IoU is that share."""
    size = (rng.integers(3, 8, len(quality)) * 0 + 5.0).astype(np.float64)
    hit, truth = (quality * 1000)[:, None], np.full((len(quality), 1), 1000.0)
    names = tuple(f"g{i}" for i in range(len(quality)))
    return Counts(names, hit, truth, hit, (quality * size)[:, None], size[:, None], names)


def main() -> None:
    experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rng = np.random.default_rng(7)
    for part in (replicates, families, images, crossed, verdicts, skewed):
        part(experiments, rng)


if __name__ == "__main__":
    main()
