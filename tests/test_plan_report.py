"""What `bench plan` prints: counts of units, reasons, time and the smallest difference that can be shown."""

import json
from pathlib import Path
from statistics import median, stdev

import pytest
import yaml
from conftest import Bench, write_matrix

from bench.cli import plan_report
from bench.plan.unit_folder import SPENT
from results.record_files import read_records
from results.store import Store

ROOT = Path(__file__).parents[1]


def test_units_without_steps_do_not_count_for_the_time_per_step(tmp_path: Path) -> None:
    """ImageNet weights are a pretraining that takes seconds and trains nothing."""
    for name, seconds, work in (("a", 2.65, 0), ("b", 300, 3000), ("c", 500, 3000)):
        folder = tmp_path / "units" / "pretrain" / name
        folder.mkdir(parents=True)
        spent = {"seconds": seconds, "work": work, "by": "x", "protocol": "p", "device": "d"}
        (folder / SPENT).write_text(json.dumps(spent))
    (tmp_path / "units" / "pretrain" / "b" / "torn").write_text("")
    (folder.with_name("torn")).mkdir()
    (folder.with_name("torn") / SPENT).write_text("{")
    rates = plan_report._rates(Store(tmp_path))
    assert rates == {("pretrain", "x", "p"): {"d": pytest.approx(800 / 6000)}}


def checkpoint_of(folder: Path, *backbones: str) -> None:
    """A card whose weights fit some backbones; a plan only hashes them."""
    folder.mkdir()
    checkpoint = {"backbones": list(backbones), "path": "weights.safetensors"}
    card = {"name": folder.name, "description": "A test's.", "checkpoints": [checkpoint]}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    (folder / "weights.safetensors").write_bytes(b"weights")


def test_units_that_only_skipped_runs_need_are_counted_as_skipped(bench: Bench, tmp_path: Path) -> None:
    checkpoint_of(tmp_path / "mine", "tiny")
    path = write_matrix(tmp_path, ("none", "mine/card.yaml"), ("tiny", "segformer-b0"))
    lines = bench("plan", "--matrix", path).out.splitlines()
    assert "  pretrain      2 units: 0 done, 1 to do, 1 skipped" in lines
    assert "  tune          4 units: 0 done, 3 to do, 1 skipped" in lines
    assert "  final         8 units: 0 done, 6 to do, 2 skipped" in lines


@pytest.mark.parametrize("command", ["plan", "run"])
def test_equal_reasons_are_printed_once(command: str, bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, ("satir/felzenszwalb", "satir/felzenszwalb/top-4"), ("tiny",))
    data = tmp_path / "data"
    assert bench("data", "make", "scenes", "--n", 60, "--size", "64x80", "--data", data).code == 0
    for image in (data / "scenes" / "unlabelled").iterdir():
        image.unlink()
    (data / "scenes" / "unlabelled").rmdir()
    words = ("--matrix", path, "--data", data)
    few = bench(command, *words, *(("--executor", "inline") * (command == "run"))).out.splitlines()
    at = few.index("  skipped 2 cells: scenes has no unlabelled images: name a folder with --pool DIR")
    assert few[at + 1] == "    cells: satir/felzenszwalb x tiny, satir/felzenszwalb/top-4 x tiny"
    path.write_text(path.read_text() + "train_fracs: [0.5, 1.0]\n")
    many = bench("plan", *words).out.splitlines()
    at = many.index("  skipped 4 cells: scenes has no unlabelled images: name a folder with --pool DIR")
    assert many[at + 1] == "    sources: satir/felzenszwalb, satir/felzenszwalb/top-4"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plan_says_that_its_protocol_needs_a_gpu(device: str, bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, device=device)
    says = "test-v1 needs a CUDA GPU; on a machine without one, --smoke tries the matrix on the CPU"
    assert (says in bench("plan", "--matrix", path).out) == (device == "cuda")
    assert says not in bench("plan", "--matrix", path, "--smoke").out


def test_the_smallest_difference_is_in_miou_before_anything_is_measured(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_report, "TYPICAL_SD", 0.009)
    path = write_matrix(tmp_path, backbones=("tiny", "segformer-b0"), replicates=5)
    lines = bench("plan", "--matrix", path).out.splitlines()
    assert lines[-3:] == [
        "  two sources must differ by about 0.019 mIoU on one backbone for 5 replicates to show it (in 4 of 5 studies, p < 5 %)",
        "    or by about 0.012 mIoU if pooled over 2 backbones",
        "    for a standard deviation of 0.009 mIoU between replicates, that of the shipped runs, because this store "
        "has no such runs yet",
    ]
    assert "a test needs 3 replicates, and test-v1~smoke has 1" in bench("plan", "--matrix", path, "--smoke").out
    path = write_matrix(tmp_path, replicates=2)
    assert "a test needs 3 replicates, and test-v1 has 2" in bench("plan", "--matrix", path).out
    path = write_matrix(tmp_path, ("none", "none/long", "imagenet"), replicates=5)
    family = "or by about 0.024 mIoU to be established first among all 3 pairs (Holm)"
    assert family in bench("plan", "--matrix", path).out


def test_the_typical_deviation_is_that_of_the_shipped_runs() -> None:
    scores: dict[str, list[float]] = {}
    for record in read_records(Store(ROOT / "results" / "runs"))[0]:
        if record.scores is not None:
            scores.setdefault(record.cell, []).append(record.scores.miou)
    assert round(median(map(stdev, scores.values())), 3) == plan_report.TYPICAL_SD


def test_the_smallest_difference_goes_by_what_was_measured(bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, replicates=3)
    assert bench("run", "--matrix", path, "--executor", "inline").code == 0
    scores = [record.scores.miou for record in read_records(Store(tmp_path / "store"))[0] if record.scores]
    last = bench("plan", "--matrix", path).out.splitlines()[-1]
    assert (
        last == f"    for a standard deviation of {stdev(scores):.3f} mIoU between replicates, measured in this store"
    )
