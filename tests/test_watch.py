"""The val curve of a training: where its points are, and that nothing else changes."""

import csv
import io
import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Bench, protocol_fields, write_matrix

from backbones.network import Network
from backbones.registry import find_backbone
from bench import DivergedError
from bench.score import confusion_matrix
from bench.spec import Protocol
from bench.targets import open_target
from bench.train import watch
from bench.train.batches import Batches, open_split
from bench.train.loop import Beside, History, Training, fit, history_csv, predict
from bench.train.loss import SegmentationLoss
from bench.train.watch import ValCurve, steps_watched
from bench.train.weights import build_for
from results import metrics
from results.record_files import read_records
from results.store import Store

STEPS = 5
BACKBONES = ["tiny", "segformer-b0", "fpn-efficientnet-lite0", "dpt:vit_tiny_patch16_224"]


def protocol(**changes: object) -> Protocol:
    return Protocol.model_validate(protocol_fields(finetune_steps=STEPS, max_frames=4, **changes))


@pytest.fixture(autouse=True)
def _frames_of_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STEPS_A_FRAME", 1)


def curve(scenes: Path, settings: Protocol) -> ValCurve:
    return ValCurve(open_target("scenes", scenes), settings, STEPS)


def train(scenes: Path, settings: Protocol, backbone: str = "tiny", **beside: Any) -> tuple[Network, History]:
    frames = open_split(open_target("scenes", scenes), "train", settings)
    torch.manual_seed(0)
    net = build_for(settings, find_backbone(backbone), 21)
    loss = SegmentationLoss(settings.loss, np.ones(21))
    training = Training(settings, settings.default, loss, STEPS, 0, frozen=settings.transfer != "finetune")
    report = beside.pop("report", lambda *_, **__: None)
    return net, fit(net, Batches(frames, settings, 21, 0, STEPS), training, report, **beside)


def test_about_ten_even_steps_with_the_last() -> None:
    assert sorted(steps_watched(1200)) == list(range(120, 1201, 120))
    assert sorted(steps_watched(33)) == [3, 7, 10, 13, 16, 20, 23, 26, 30, 33]
    assert sorted(steps_watched(2)) == [1, 2]
    for steps in range(1, 40):
        assert len(steps_watched(steps)) == min(steps, 10)
        assert max(steps_watched(steps)) == steps


@pytest.mark.parametrize("transfer", ["finetune", "frozen"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_training_with_points_is_the_same_bit_for_bit(backbone: str, transfer: str, scenes: Path) -> None:
    settings = protocol(transfer=transfer)
    points = curve(scenes, settings)
    (plain, history), (watched, again) = (
        train(scenes, settings, backbone, **beside) for beside in ({}, {"watch": points})
    )
    assert sorted(points.points) == [1, 2, 3, 4, 5]
    assert history == again
    for name, value in plain.state_dict().items():  # the statistics of BatchNorm are among them
        assert torch.equal(value, watched.state_dict()[name]), name
    modes = [[part.training for part in net.modules()] for net in (plain, watched)]
    assert modes[0] == modes[1]
    assert any(modes[1])
    assert any(part.training for part in watched.encoder.modules()) == (transfer == "finetune")


def test_a_look_draws_no_random_numbers_and_moves_no_statistics(scenes: Path) -> None:
    settings = protocol()
    net, points = train(scenes, settings)[0], curve(scenes, settings)
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    held = {name: value.clone() for name, value in net.state_dict().items()}
    points(1, net)
    assert points.points
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), str(np.random.get_state()))
    assert all(torch.equal(value, held[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("changes", [{}, {"window_px": [64, 80], "stride_px": [40, 50]}, {"image_px": [60, 80]}])
def test_the_last_point_is_the_miou_of_these_frames_as_test_frames_are_scored(
    changes: dict[str, object], scenes: Path
) -> None:
    settings = protocol(**changes)
    points = curve(scenes, settings)
    net, _ = train(scenes, settings, watch=points)
    total = np.zeros((21, 21), dtype=np.int64)
    frames = open_split(open_target("scenes", scenes), "val", settings)
    for frame, pred in predict(net, frames, settings, lambda *_, **__: None):
        total += confusion_matrix(pred, frame.label, 21)
    assert len(frames) == 4
    assert points.points[STEPS] == metrics.miou(total)


def test_sixteen_frames_of_val_evenly_chosen_and_none_where_val_is_trained_on(scenes: Path) -> None:
    target = open_target("scenes", scenes)
    val = [frame.id for frame in target.splits["val"]]
    settings = protocol().model_copy(update={"max_frames": None})
    chosen = [frame.id for frame in ValCurve(target, settings, 1200).frames]
    assert len(val) > len(chosen) == 16
    assert (chosen[0], chosen[-1]) == (val[0], val[-1])
    assert {val.index(b) - val.index(a) for a, b in itertools.pairwise(chosen)} <= {1, 2}
    on_test = protocol(select_on="test")
    points = curve(scenes, on_test)
    assert not points.frames
    _, history = train(scenes, on_test, watch=points)
    assert not points.points
    assert history_csv(history, points.points).startswith("step,loss,lr\n")


def test_a_short_training_has_fewer_frames(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    target = open_target("scenes", scenes)
    settings = protocol().model_copy(update={"max_frames": None})
    counts = {steps: len(ValCurve(target, settings, steps).frames) for steps in (1, 39, 60, 319, 320, 14400)}
    assert counts == {1: 1, 39: 1, 60: 3, 319: 15, 320: 16, 14400: 16}


class Killed(BaseException):
    """Simulates the death of the process."""


def test_points_survive_a_kill(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.train.loop.KEPT_EVERY_S", 0)
    settings = protocol()
    whole = curve(scenes, settings)
    _, history = train(scenes, settings, watch=whole)
    seen: list[int] = []

    def report(done: int, total: int, /, **facts: float) -> None:
        seen.append(done)
        if seen == [1, 2, 3]:
            raise Killed

    beside: Beside = {"checkpoint": tmp_path / "checkpoint.pt"}
    with pytest.raises(Killed):
        train(scenes, settings, report=report, watch=curve(scenes, settings), **beside)
    later = curve(scenes, settings)
    _, again = train(scenes, settings, report=report, watch=later, **beside)
    assert seen == [1, 2, 3, 4, 5], "it continued"
    assert history_csv(again, later.points) == history_csv(history, whole.points)
    assert later.points == whole.points


def test_a_checkpoint_without_points_is_of_an_older_version(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.train.loop.KEPT_EVERY_S", 0)
    settings, path = protocol(), tmp_path / "checkpoint.pt"
    _, history = train(scenes, settings, checkpoint=path)
    points = curve(scenes, settings)
    _, again = train(scenes, settings, checkpoint=path, watch=points)
    assert again == history
    assert sorted(points.points) == [1, 2, 3, 4, 5], "it began anew"


@pytest.mark.parametrize("error", [DivergedError("not finite"), torch.OutOfMemoryError("full")])
def test_a_point_that_fails_is_left_out(error: Exception, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = protocol()
    points, calls = curve(scenes, settings), []

    def broken(*words: Any) -> Any:
        calls.append(words)
        if len(calls) == 2:
            raise error
        return predict(*words)

    monkeypatch.setattr(watch, "predict", broken)
    net, history = train(scenes, settings, watch=points)
    assert sorted(points.points) == [1, 3, 4, 5]
    assert any(part.training for part in net.modules()), "and training went on"
    rows = list(csv.DictReader(io.StringIO(history_csv(history, points.points))))
    assert [row["val_miou"] == "" for row in rows] == [False, True, False, False, False]


def test_the_history_of_a_final_run_holds_the_points(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped in the middle and continued has the history of one that was not."""
    monkeypatch.setattr("bench.train.loop.KEPT_EVERY_S", 0)
    matrix = write_matrix(tmp_path, finetune_steps=20, replicates=1, trials=1)
    assert bench("run", "--matrix", matrix, "--executor", "inline").code == 0
    real, seen = ValCurve.__call__, list[int]()

    def look(self: ValCurve, step: int, network: Network, /) -> None:
        seen.append(step)
        if seen.count(15) == 1 and step == 15:
            raise KeyboardInterrupt
        real(self, step, network)

    monkeypatch.setattr(ValCurve, "__call__", look)
    call = ("run", "--matrix", matrix, "--executor", "inline", "--store", tmp_path / "other")
    assert bench(*call).code == 3
    assert bench(*call).code == 0
    assert seen == [*range(1, 16), *range(15, 21)]
    ((here,), _), ((there,), _) = (read_records(Store(tmp_path / name)) for name in ("store", "other"))
    texts = [
        (store.folder_of(record) / "history.csv").read_text()
        for store, record in ((Store(tmp_path / "store"), here), (Store(tmp_path / "other"), there))
    ]
    assert texts[0] == texts[1]
    rows = list(csv.DictReader(io.StringIO(texts[0])))
    assert [int(row["step"]) for row in rows if row["val_miou"]] == list(range(2, 21, 2))
    assert here.scores == there.scores
    assert here.network_sha256 == there.network_sha256
    assert here.provenance is not None
    assert here.provenance.val_frames == 3
