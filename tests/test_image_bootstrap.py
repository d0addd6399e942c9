"""Bootstrap over groups of test images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import record
from scipy.stats import bootstrap

from results import metrics
from results.evidence import Evidence, sha256
from results.image_bootstrap import Counts, counts, interval, over_groups
from results.record_files import write_record
from results.replicate_scores import samples
from results.store import Store
from results.table import runs_frame


def proof(seed: int, images: int = 60, groups: int = 12, classes: int = 3, better: int = 0) -> Evidence:
    """Random evidence; the labels are the same for every seed."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    truth = fixed.integers(0, 200, (images, classes))
    shares = rng.dirichlet(np.ones(classes), (images, classes)) + better * np.eye(classes)
    shares /= shares.sum(2, keepdims=True)
    confusion = np.floor(shares * truth[:, :, None]).astype(np.int64)
    confusion[:, :, 0] += truth - confusion.sum(2)
    weighted = np.where(truth > 0, rng.random((images, classes)), np.nan)
    ids = np.array([f"i{i}" for i in range(images)])
    return Evidence(ids, np.array([f"g{i % groups}" for i in range(images)]), confusion, weighted)


@pytest.mark.parametrize("metric", ["miou", "weighted_f"])
def test_uniform_weights_give_the_score(metric: str) -> None:
    evidence = proof(1)
    whole = counts(evidence).draws(np.ones((1, 12)), metric)[0]
    assert whole == pytest.approx(getattr(metrics.scores(evidence), metric))


def test_draw_is_the_score_of_the_sampled_images() -> None:
    evidence, weights = proof(1), np.array([[2.0, 0, 1, 0, 0, 3, 1, 1, 1, 1, 1, 1]])
    names = np.unique(evidence.groups)
    places = np.concatenate(
        [np.flatnonzero(evidence.groups == n) for n, w in zip(names, weights[0], strict=False) for _ in range(int(w))]
    )
    assert counts(evidence).draws(weights, "miou")[0] == pytest.approx(metrics.miou(evidence.confusion[places].sum(0)))


def test_agrees_with_scipy() -> None:
    """One class, one image a group: the weighted F-measure is a mean, and scipy's interval is of the same mean."""
    a, b = (np.random.default_rng(i).normal(0.5 + i / 10, 0.1, 80) for i in (0, 1))
    ids = np.array([f"i{i}" for i in range(80)])
    sides = [[counts(Evidence(ids, ids, np.full((80, 1, 1), 9), values[:, None]))] for values in (a, b)]
    ours = over_groups([(sides[0], sides[1])], "weighted_f", draws=20_000)
    theirs = bootstrap((a - b,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0))
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)


@pytest.mark.parametrize("metric", ["miou", "weighted_f"])
def test_order_of_classes_and_images_does_not_matter(metric: str) -> None:
    rng = np.random.default_rng(0)
    classes, images = rng.permutation(3), rng.permutation(60)

    def turned(run: Evidence) -> Evidence:
        confusion = run.confusion[images][:, classes][:, :, classes]
        return Evidence(run.image_ids[images], run.groups[images], confusion, run.weighted_f[images][:, classes])

    runs = [proof(1, better=1), proof(2)]
    first, second = (
        over_groups([([counts(made[0])], [counts(made[1])])], metric) for made in (runs, [turned(run) for run in runs])
    )
    assert (first.low, first.high) == pytest.approx((second.low, second.high), rel=1e-12)
    assert getattr(metrics.scores(turned(runs[0])), metric) == pytest.approx(getattr(metrics.scores(runs[0]), metric))


def test_better_source_is_ahead() -> None:
    a, b = ([counts(proof(seed, better=better)) for seed in range(3)] for better in (3, 0))
    ahead = over_groups([(a, b)], "miou")
    assert ahead.low is not None
    assert ahead.low > 0
    assert ahead == over_groups([(a, b)], "miou"), "the same seed, the same interval"
    turned = over_groups([(b, a)], "miou")
    assert turned.high == pytest.approx(-ahead.low)


def changed(run: Counts, what: str) -> Counts:
    if what == "images":
        return replace(run, images=(*run.images[:-1], "other"))
    if what == "groups":
        return replace(run, groups=(*run.groups[:-1], "other"))
    return replace(run, truth=run.truth + 1)


@pytest.mark.parametrize("what", ["images", "groups", "truth"])
def test_evidence_of_another_test_split_is_rejected(what: str) -> None:
    run = counts(proof(1))
    with pytest.raises(ValueError, match="not scored on the same images"):
        over_groups([([run], [changed(run, what)])], "miou")
    with pytest.raises(ValueError, match="not scored on the same images"):
        over_groups([([run], [counts(proof(1, classes=4))])], "miou")


def test_no_interval_for_few_groups_or_equal_runs() -> None:
    few = over_groups([([counts(proof(1, groups=4))], [counts(proof(2, groups=4))])], "miou")
    assert few.low is None
    assert "4 groups are too few" in str(few.why_not)
    run = counts(proof(1))
    assert "the same in every bootstrap sample" in str(over_groups([([run], [run])], "miou").why_not)


def test_changed_evidence_is_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def write(better: int) -> None:
        for number, source in enumerate(("a", "b")):
            for replicate in range(3):
                run = proof(10 * number + replicate, better=better * (1 - number))
                fields: dict[str, Any] = {"scores": metrics.scores(run), "evidence_sha256": sha256(run.to_bytes())}
                write_record(store, record(replicate, source=source, cell=source * 64, **fields), run)

    def lower() -> float | None:
        data = samples(runs_frame(store))
        return interval(store, data, "a", "b", "miou", None)[0][0]

    write(better=1)
    first = lower()
    write(better=5)
    second = lower()
    assert first is not None
    assert second is not None
    assert second > first + 0.1
