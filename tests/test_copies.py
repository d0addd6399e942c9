"""Copied runs, exact or slightly changed, and independent ones."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.submission import networks
from bench.submission.copies import (
    COPIED_SHARE,
    HONEST_RUNS,
    NEAR,
    NEAR_MOST,
    SHIPPED,
    Comparison,
    Known,
    Place,
    errors_of,
    explained,
    nearness,
    places,
    read_known,
)
from bench.submission.faults import texts
from results.evidence import Evidence, sha256
from results.evidence_files import read_evidence
from results.record import RunRecord
from results.record_files import read_records
from results.store import Store

Ints = NDArray[np.int64]


@pytest.fixture(scope="module")
def shipped() -> list[tuple[RunRecord, Evidence]]:
    """The measured runs that ship, on one target."""
    store = Store(SHIPPED)
    measured = [one for one in read_records(store)[0] if one.status == "ok" and one.target == "buffalo-udder"]
    return [(one, read_evidence(store, one)) for one in measured]


@pytest.fixture(scope="module")
def here() -> list[Place]:
    return places(Path("nowhere") / "mine", "mine", None)


def forged(record: RunRecord, evidence: Evidence, confusion: Ints, **changes: Any) -> Known:
    """A bundle's run forged from a shipped one: another name, another fingerprint, no network."""
    settings = {"identity": {"needs": [{"kind": "pretrain", "checkpoint": {"sha256": "a" * 64}}]}}
    fields = {"source": "mine", "run": "f" * 64, "cell": "e" * 64, "network_sha256": None, "settings": settings}
    made = record.model_copy(update=fields | changes)
    return Known(made, errors_of(replace(evidence, confusion=confusion)), "mine")


def one_pixel(confusion: Ints) -> Ints:
    """One pixel of each image predicted as another class."""
    moved = confusion.copy()
    for image in moved:
        row = int(image.sum(1).argmax())
        wrong = int((image[row] + np.where(np.arange(len(image)) == row, -(2**40), 0)).argmax())
        image[row, row] -= 1
        image[row, wrong] += 1
    return moved


def noise(confusion: Ints, share: float) -> Ints:
    """Move this share of the wrong pixels of each row to another wrong class; of two classes, to the right one."""
    moved, rng = confusion.copy(), np.random.default_rng(0)
    for image in moved:
        for row in range(len(image)):
            wrong = [k for k in range(len(image)) if k != row]
            taken = rng.binomial(image[row, wrong], share)
            image[row, wrong] -= taken
            image[row, wrong if len(wrong) > 1 else [row]] += np.roll(taken, 1)
    return moved


def mixed(a: Evidence, b: Evidence) -> Ints:
    """Take every other image from another run."""
    order = {name: row for row, name in enumerate(b.image_ids.tolist())}
    turned = b.confusion[[order[name] for name in a.image_ids.tolist()]]
    every = (np.arange(len(turned)) % 2 == 0)[:, None, None]
    return np.where(every, a.confusion, turned)


def test_independent_runs_are_not_copies(shipped: list[tuple[RunRecord, Evidence]]) -> None:
    """The nearest pair is three times as far apart as the threshold without calibration, and shares next to no image."""
    known = list(read_known(Store(SHIPPED), "here", [shipped[0][0].target]))
    assert len(known) == len(shipped)
    pairs = [nearness(a.errors, b.errors) for a, b in itertools.combinations(known, 2)]
    assert len(pairs) >= 435
    assert min(each.distance for each in pairs if each) > 3 * NEAR
    assert max(each.copied for each in pairs if each) < COPIED_SHARE / 4
    comparison = Comparison(known)
    assert list(comparison.faults()) == []
    assert comparison.notes == []


def test_copies_of_shipped_runs_are_detected(shipped: list[tuple[RunRecord, Evidence]], here: list[Place]) -> None:
    record, evidence = next((r, e) for r, e in shipped if r.source == "imagenet" and r.replicate == 2)
    other = next(e for r, e in shipped if r.source == "none/long" and r.replicate == 1)
    copies = {
        "exact": evidence.confusion,
        "a pixel of each image": one_pixel(evidence.confusion),
        "some noise": noise(evidence.confusion, 0.05),
        "half of the images of another": mixed(evidence, other),
    }
    for what, confusion in copies.items():
        comparison = Comparison([forged(record, evidence, confusion)], here)
        faults = texts(comparison.faults())
        assert faults, what
        assert "mine x fpn-efficientnet-lite0 r2 (ffffffffffff) in mine: " in faults[0], what
        assert "imagenet x fpn-efficientnet-lite0 r2 (" in " ".join(faults), what
        assert "results/runs (shipped)" in faults[0], what
    assert comparison.summary().endswith(f": {len(shipped)} in results/runs (shipped)")


@pytest.mark.parametrize(
    "changes", [{"train_frac": 0.1}, {"protocol": "hit-uav-quick-v1"}, {"backbone": "fpn-resnet50"}, {"replicate": 4}]
)
def test_a_relabelled_copy_is_detected(
    changes: dict[str, Any], shipped: list[tuple[RunRecord, Evidence]], here: list[Place]
) -> None:
    """Relabelled with another label share, protocol, backbone or replicate."""
    record, evidence = shipped[0]
    faults = texts(Comparison([forged(record, evidence, one_pixel(evidence.confusion), **changes)], here).faults())
    assert len(faults) == 1
    assert record.run[:12] in faults[0]


def test_one_replicate_twice_with_a_pixel_moved(shipped: list[tuple[RunRecord, Evidence]]) -> None:
    record, evidence = shipped[0]
    pair = [
        forged(record, evidence, evidence.confusion, run="a" * 64),
        forged(record, evidence, one_pixel(evidence.confusion), run="b" * 64, replicate=record.replicate + 1),
    ]
    assert len(list(Comparison(pair).faults())) == 1


def test_the_threshold_is_calibrated_on_trusted_runs_of_the_target(
    shipped: list[tuple[RunRecord, Evidence]], here: list[Place], tmp_path: Path
) -> None:
    record, evidence = shipped[0]
    mine = forged(record, evidence, noise(evidence.confusion, 0.03))
    honest = [one.errors for one in read_known(Store(SHIPPED), "here", [record.target])][:HONEST_RUNS]
    nearest = min(near.distance for a, b in itertools.combinations(honest, 2) if (near := nearness(a, b)))
    shipped_threshold = Comparison([mine], here).threshold
    assert NEAR < shipped_threshold == min(NEAR_MOST, nearest / 2)
    assert Comparison([mine]).threshold == NEAR, "no trusted runs"
    close = Store(tmp_path / "runs")  # an easy target: trainings that differ in little
    rng = np.random.default_rng(0)
    for number in range(5):
        nearly = replace(evidence, confusion=noise(evidence.confusion, 0.01 * (1 + rng.random())))
        place = close.folder_of(record.model_copy(update={"run": str(number) * 64, "replicate": number}))
        shutil.copytree(Store(SHIPPED).folder_of(record), place)
        fields = {"run": str(number) * 64, "replicate": number, "network_sha256": None}
        fields["evidence_sha256"] = sha256(nearly.to_bytes())
        (place / "evidence.npz").write_bytes(nearly.to_bytes())
        (place / "record.json").write_text(record.model_copy(update=fields).model_dump_json())
    assert len(list(read_known(close, "close", [record.target]))) == 5
    assert Comparison([mine], [Place(close, "close", trusted=True)]).threshold < shipped_threshold
    assert Comparison([mine], [Place(close, "close", trusted=False)]).threshold == NEAR, (
        "a submission calibrates nothing"
    )


def test_networks_that_predict_one_class_are_not_copies(shipped: list[tuple[RunRecord, Evidence]]) -> None:
    """They share all errors but a few; only those few tell runs apart."""
    record, evidence = shipped[0]
    truth = evidence.confusion.sum(2)
    thirds = np.stack([truth[:, 0], truth[:, 1] // 2, truth[:, 1] - truth[:, 1] // 2], axis=1)  # of three classes
    evidence = replace(evidence, confusion=np.zeros((len(truth), 3, 3), np.int64), weighted_f=np.ones((len(truth), 3)))
    floor = np.zeros_like(evidence.confusion)
    floor[:, :, 0] = thirds
    other = floor.copy()
    for image in range(len(floor)):  # each a few pixels of its own
        row = image % 2
        floor[image, 0, 0] -= 9
        floor[image, 0, 1 + row] += 9
        other[image, 0, 0] -= 9
        other[image, 0, 2 - row] += 9
    pair = [forged(record, evidence, floor, run="a" * 64), forged(record, evidence, other, run="b" * 64)]
    assert list(Comparison(pair).faults()) == []
    same = [pair[0], forged(record, evidence, floor, run="c" * 64, replicate=record.replicate + 1)]
    assert len(list(Comparison(same).faults())) == 1
    constant = np.zeros_like(floor)
    constant[:, :, 0] = thirds
    pair = [forged(record, evidence, constant, run=c * 64, replicate=i) for i, c in enumerate("ab")]
    assert list(Comparison(pair).faults()) == [], "one class everywhere happens to more than one run"


def test_only_weights_of_equal_identity_explain_equal_predictions(shipped: list[tuple[RunRecord, Evidence]]) -> None:
    record = next(r for r, _ in shipped if r.source == "imagenet" and r.replicate == 0)
    twin = record.model_copy(update={"source": "theirs", "run": "f" * 64})
    assert explained(record, twin)
    assert not explained(record, twin.model_copy(update={"settings": {}}))
    assert not explained(record, twin.model_copy(update={"train_frac": 0.1}))
    assert not explained(record, twin.model_copy(update={"weights_sha256": "0" * 64}))


# -- networks ---------------------------------------------------------------------------------------------------------------


def drawn(seed: int, record: RunRecord, name: str = "a") -> tuple[networks.Sketch, dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.Conv2d(16, 8, 3))
    tensors = layers.state_dict()
    return networks.sketch(record, Path(f"{name}.safetensors"), tensors), tensors


def test_a_copied_network_with_a_changed_weight_is_detected(shipped: list[tuple[RunRecord, Evidence]]) -> None:
    first, second = (record for record, _ in shipped[:2])
    mine, tensors = drawn(0, first)
    other, _ = drawn(1, second, "b")
    assert networks.distance(mine, other) == pytest.approx(1, abs=0.1)
    assert list(networks.copies([mine], [other])) == []
    moved = {name: tensor.clone() for name, tensor in tensors.items()}
    moved["0.weight"].view(-1)[0] += 1e-6
    noisy = {name: t + 0.01 * t.std() * torch.randn_like(t) if t.ndim > 1 else t for name, t in tensors.items()}
    for changed in (tensors, moved, noisy):
        copy = networks.sketch(second, Path("b.safetensors"), changed)
        ((a, b, apart),) = networks.copies([mine], [copy])
        assert (a.path.name, b.path.name) == ("a.safetensors", "b.safetensors")
        assert apart < networks.NEAR
    assert len(list(networks.copies([mine, networks.sketch(second, Path("b"), moved)], []))) == 1, "within a bundle"
    assert list(networks.copies([mine], [mine])) == [], "a run is not a copy of itself"


def test_networks_of_two_architectures_are_not_compared(shipped: list[tuple[RunRecord, Evidence]]) -> None:
    record = shipped[0][0]
    mine, tensors = drawn(0, record)
    tensors.pop("2.weight")
    assert networks.distance(mine, networks.sketch(record, Path("b"), tensors)) is None
