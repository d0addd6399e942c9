"""Uncertainty over groups of test images, and over trainings and images together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import record

from results import metrics, stats, uncertainty
from results.board import board
from results.cell_intervals import with_intervals
from results.claims import judge, parse, sentence
from results.compare import compare
from results.evidence import Evidence, sha256
from results.groups import larger, nested
from results.over_images import Counts, NoImagesError, cell, counts, jackknife, units, variance
from results.record_files import write_record
from results.replicate_scores import Samples, samples
from results.store import Store
from results.table import runs_frame
from results.tiers import tiers


def proof(
    seed: int, images: int = 60, groups: int = 12, classes: int = 3, better: float = 0, only: int = 99
) -> Evidence:
    """Random evidence; the labels are the same for every seed. only: groups that are better."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    truth = fixed.integers(0, 200, (images, classes))
    where = np.arange(images) % groups < only
    shares = rng.dirichlet(np.ones(classes), (images, classes)) + better * where[:, None, None] * np.eye(classes)
    shares /= shares.sum(2, keepdims=True)
    confusion = np.floor(shares * truth[:, :, None]).astype(np.int64)
    confusion[:, :, 0] += truth - confusion.sum(2)
    weighted = np.where(truth > 0, rng.random((images, classes)), np.nan)
    ids = np.array([f"i{i}" for i in range(images)])
    return Evidence(ids, np.array([f"g{i % groups}" for i in range(images)]), confusion, weighted)


@pytest.mark.parametrize("metric", ["miou", "weighted_f"])
def test_uniform_weights_give_the_score(metric: str) -> None:
    evidence = proof(1)
    whole = counts(evidence).weighted(np.ones((1, 12)), metric)[0]
    assert whole == pytest.approx(getattr(metrics.scores(evidence), metric))


def test_draw_is_the_score_of_the_sampled_images() -> None:
    evidence, weights = proof(1), np.array([[2.0, 0, 1, 0, 0, 3, 1, 1, 1, 1, 1, 1]])
    names = np.unique(evidence.groups)
    places = np.concatenate(
        [np.flatnonzero(evidence.groups == n) for n, w in zip(names, weights[0], strict=False) for _ in range(int(w))]
    )
    assert counts(evidence).weighted(weights, "miou")[0] == pytest.approx(
        metrics.miou(evidence.confusion[places].sum(0))
    )


def test_variance_is_that_of_a_mean_where_the_score_is_one() -> None:
    """One class, one image a group: the weighted F-measure is a mean, whose variance is known."""
    a, b = (np.random.default_rng(i).normal(0.5 + i / 10, 0.1, 80) for i in (0, 1))
    ids = np.array([f"i{i}" for i in range(80)])
    cells = [cell([counts(Evidence(ids, ids, np.full((80, 1, 1), 9), v[:, None]))], "weighted_f") for v in (a, b)]
    found, by = variance([(cells[0], cells[1])])
    assert found == pytest.approx(np.var(a - b, ddof=1) / 80)
    assert by.count == 80
    assert "one image each: images are assumed independent" in by.note


@pytest.mark.parametrize("metric", ["miou", "weighted_f"])
def test_without_a_group_is_the_score_of_the_others(metric: str) -> None:
    run = proof(3)
    without = cell([counts(run)], metric).without
    for number, name in enumerate(np.unique(run.groups)):
        kept = run.groups != name
        rest = Evidence(run.image_ids[kept], run.groups[kept], run.confusion[kept], run.weighted_f[kept])
        assert without[number] == pytest.approx(getattr(metrics.scores(rest), metric))
    mean = without.mean()
    assert jackknife(without) == pytest.approx(11 / 12 * sum((value - mean) ** 2 for value in without))


def changed(run: Counts, what: str) -> Counts:
    if what == "images":
        return replace(run, images=(*run.images[:-1], "other"))
    if what == "groups":
        return replace(run, groups=(*run.groups[:-1], "other"))
    return replace(run, truth=run.truth + 1)


@pytest.mark.parametrize("what", ["images", "groups", "truth"])
def test_evidence_of_another_test_split_is_rejected(what: str) -> None:
    run = counts(proof(1))
    with pytest.raises(NoImagesError, match="not scored on the same images"):
        cell([run, changed(run, what)], "miou")
    with pytest.raises(NoImagesError, match="not scored on the same images"):
        variance([(cell([run], "miou"), cell([changed(run, what)], "miou"))])


def test_no_interval_for_few_groups_or_equal_runs() -> None:
    with pytest.raises(NoImagesError, match="4 groups of test images are too few"):
        units(counts(proof(1, groups=4)))
    with pytest.raises(NoImagesError, match="1 group of test images is too few"):
        units(counts(proof(1, groups=1)))
    one = cell([counts(proof(1))], "miou")
    with pytest.raises(NoImagesError, match="changes nothing"):
        variance([(one, one)])


def test_groups_that_nest() -> None:
    names = [nested(f"day {i % 2}", f"leg {i}") for i in range(9)]
    assert larger(names) == [f"day {i % 2}" for i in range(9)]
    assert larger([*names, "alone"]) is None
    assert larger([]) is None
    assert nested("a / b") == "a/b", "a name of its own does not nest"
    run = counts(proof(1))
    two = units(replace(run, groups=tuple(nested(f"day {i % 2}", name) for i, name in enumerate(run.groups))))
    assert two.count == 12
    assert "they nest in 2 larger ones and are not independent, so intervals over images are approximate" in two.note
    six = units(replace(run, groups=tuple(nested(f"day {i % 6}", name) for i, name in enumerate(run.groups))))
    assert (six.count, six.of_group[:7]) == (6, (0, 1, 2, 3, 4, 5, 0)), "the larger groups are enough"
    assert "6 larger groups of 60 test images, in which 12 groups nest" in six.note


def filled(folder: Path, better: float = 0, groups: int = 12, only: int = 99) -> Store:
    """Fill a store with three runs of two sources, of which the first is better."""
    store, replicates = Store(folder), 3
    for number, source in enumerate("ab"):
        for replicate in range(replicates):
            run = proof(10 * number + replicate, groups=groups, better=better * (1 - number), only=only)
            fields: dict[str, Any] = {"scores": metrics.scores(run), "evidence_sha256": sha256(run.to_bytes())}
            fields |= {"source": source, "cell": source * 64, "replicates": replicates}
            write_record(store, record(replicate, **fields), run)
    return store


def data_of(store: Store) -> Samples:
    return samples(runs_frame(store))


def test_variance_over_both_is_the_sum(tmp_path: Path) -> None:
    one = uncertainty.Judge(data_of(filled(tmp_path, 0.3))).between("a", "b")
    trainings, images, both = one.trainings, one.images, one.both
    assert trainings.standard_error is not None
    assert images.standard_error is not None
    assert both.standard_error == pytest.approx(np.hypot(trainings.standard_error, images.standard_error))
    parts = [(e.standard_error or 0) ** 2 for e in (trainings, images)]
    freedom = [trainings.degrees_of_freedom or 0, images.degrees_of_freedom or 0]
    expected = sum(parts) ** 2 / sum(part**2 / dof for part, dof in zip(parts, freedom, strict=True))
    assert both.degrees_of_freedom == pytest.approx(expected)
    assert freedom[1] == 11
    assert trainings.effect == images.effect == both.effect
    assert one.judged is both
    assert one.note == "Over images: 12 groups of 60 test images."
    turned = uncertainty.Judge(data_of(Store(tmp_path))).between("b", "a")
    assert (turned.both.low, turned.both.high) == pytest.approx((-(both.high or 0), -(both.low or 0)))


def test_verdicts_rest_on_both(tmp_path: Path) -> None:
    """A source that is better in two of twelve groups is so in every training: sure over trainings, and not over images."""
    data = data_of(filled(tmp_path, 5, only=2))
    found = uncertainty.Judge(data).between("a", "b")
    assert found.trainings.p is not None
    assert found.both.p is not None
    assert found.trainings.p < 0.05 < found.both.p
    judgement = judge(parse("a > b"), data)
    assert judgement.verdict == judgement.alone == "NOT SHOWN"
    text = sentence(judgement)
    for kind in ("trainings", "images", "both"):
        one_kind = getattr(judgement.found, kind)
        assert f"over {kind} {one_kind.low:+.4f} to {one_kind.high:+.4f}" in text
    assert set(tiers(data)["tier"]) == {1}
    row = compare(data, "a", "b").iloc[0]
    assert row["p"] == found.both.p
    assert (row["trainings_low"] > 0) != (row["both_low"] > 0)


@pytest.mark.parametrize("what", ["few groups", "no evidence", "damaged", "many runs"])
def test_without_images_verdicts_are_over_trainings(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 1, groups=4 if what == "few groups" else 12)
    if what == "many runs":
        monkeypatch.setattr(uncertainty, "MOST_RUNS", 5)
    data = data_of(store)
    data = replace(data, root=None) if what == "no evidence" else data
    if what == "damaged":
        next(tmp_path.rglob("evidence.npz")).write_bytes(proof(99).to_bytes())
    one = uncertainty.Judge(data).between("a", "b")
    assert one.judged is one.trainings
    assert one.both.low is None
    says = {
        "few groups": "4 groups of test images are too few",
        "no evidence": "no evidence at hand",
        "damaged": "missing, or is not what its record says",
        "many runs": "the board has 6 runs",
    }
    assert says[what] in one.note
    assert "verdicts are over trainings alone" in one.note


def test_changed_evidence_is_read_again(tmp_path: Path) -> None:
    def lower() -> float:
        return float(compare(data_of(Store(tmp_path)), "a", "b").iloc[0]["images_low"])

    filled(tmp_path, 1)
    first = lower()
    filled(tmp_path, 5)
    assert lower() > first + 0.1


def test_intervals_of_a_cell(tmp_path: Path) -> None:
    runs = runs_frame(filled(tmp_path, 1))
    cells = with_intervals(board(runs), runs).set_index("source")
    for source in "ab":
        row = cells.loc[source]
        scores = runs.loc[runs["source"] == source, "miou"].tolist()
        evidence = [proof(10 * "ab".index(source) + i, better="ba".index(source)) for i in range(3)]
        images = jackknife(cell([counts(one) for one in evidence], "miou").without)
        error, dof = stats.added([(np.var(scores, ddof=1) / 3, 2), (images, 11)])
        both = stats.t_difference(stats.mean(scores), error, dof)
        assert (row["miou_both_low"], row["miou_both_high"]) == pytest.approx((both.low, both.high))
        assert row["miou_images_low"] < row["miou"] < row["miou_images_high"]
        assert row["images_note"] == "Over images: 12 groups of 60 test images."


def test_intervals_of_cells_without_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = runs_frame(filled(tmp_path, groups=3))
    cells = with_intervals(board(runs), runs)
    assert cells["miou_both_low"].isna().all()
    assert "3 groups of test images are too few" in cells["images_note"].iloc[0]
    monkeypatch.setattr("results.cell_intervals.MOST_RUNS", 5)
    assert "there are 6 runs here" in with_intervals(board(runs), runs)["images_note"].iloc[0]
    empty = runs.iloc[:0]
    assert with_intervals(board(empty), empty).empty
