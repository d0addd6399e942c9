from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import protocol_fields
from torch import Tensor, nn

from backbones.network import Network, build
from backbones.registry import BACKBONES
from bench import DivergedError
from bench.spec import Protocol
from bench.spec.parts import Loss, Schedule
from bench.targets import open_target
from bench.train.batches import Batches, Decoded, open_split
from bench.train.loop import Progress, Training, _offsets, fit, predict
from bench.train.loss import SegmentationLoss
from bench.train.optimiser import lr_factor

LOSS = Loss(dice_background=False, class_weight_power=0.5, class_weight_cap=5)


def protocol(**changes: object) -> Protocol:
    return Protocol.model_validate(protocol_fields(**changes))


def ignore_progress(done: int, total: int, /, **facts: float) -> None:
    pass


def train(
    scenes: Path,
    settings: Protocol,
    schedule: Schedule | None = None,
    steps: int = 4,
    backbone: str = "tiny",
    report: Progress = ignore_progress,
    checkpoint: Path | None = None,
) -> tuple[Network, list]:
    frames = open_split(open_target("scenes", scenes), "train", settings)
    torch.manual_seed(0)
    net = build(BACKBONES[backbone], 21)
    source = Batches(frames, settings, 21, seed=0, steps=steps)
    loss = SegmentationLoss(LOSS, np.ones(21))
    training = Training(settings, schedule or settings.default, loss, steps, seed=0)
    history = fit(net, source, training, report, checkpoint=checkpoint)
    return net, history


class Killed(BaseException):
    """Simulates the death of the process."""


@pytest.mark.parametrize("backbone", ["tiny", "segformer-b0"])  # one with batch statistics, one with stochastic depth
@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_training_resumes_to_the_same_weights(
    torn: bool, backbone: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.train.loop.KEPT_EVERY_S", 0)
    whole, history = train(scenes, protocol(), backbone=backbone)
    seen = []

    def report(done: int, total: int, /, **facts: float) -> None:
        seen.append(done)
        if seen in ([1, 2], [1, 2, 3]):
            raise Killed

    path = tmp_path / "checkpoint.pt"
    for _ in range(2):
        with pytest.raises(Killed):
            train(scenes, protocol(), backbone=backbone, report=report, checkpoint=path)
    assert seen == [1, 2, 3], "the third step came after the second, not after a new beginning"
    if torn:
        path.write_bytes(path.read_bytes()[:-100])
    parts, again = train(scenes, protocol(), backbone=backbone, report=report, checkpoint=path)
    assert seen == ([1, 2, 3, 1, 2, 3, 4] if torn else [1, 2, 3, 4])
    assert again == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_the_same_seed_gives_the_same_weights_bit_for_bit(scenes: Path) -> None:
    (a, history), (b, again) = train(scenes, protocol()), train(scenes, protocol())
    assert history == again
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_loader_processes_do_not_change_results(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = train(scenes, protocol())
    monkeypatch.setattr("bench.train.devices.loading_processes", lambda device: 2)
    b, _ = train(scenes, protocol())
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_learns(scenes: Path) -> None:
    _, history = train(scenes, protocol(), steps=40)
    losses = [loss for _, loss, _ in history]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_a_loss_that_is_not_finite_ends_the_run(scenes: Path) -> None:
    wild = Schedule(lr=1e30, encoder_lr_scale=1, weight_decay=0, warmup_frac=0, decay="poly")
    with pytest.raises(DivergedError, match=r"at step \d+ of 20"):
        train(scenes, protocol(), wild, steps=20)


@pytest.mark.parametrize("decay", ["poly", "cosine"])
def test_the_learning_rate_rises_then_falls_to_nearly_zero(decay: str) -> None:
    schedule = Schedule.model_validate(
        {"lr": 1, "encoder_lr_scale": 1, "weight_decay": 0, "warmup_frac": 0.2, "decay": decay}
    )
    factors = [lr_factor(schedule, step, 100) for step in range(100)]
    assert factors[:20] == sorted(factors[:20])
    assert factors[20] == max(factors) == 1
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert 0 < factors[-1] < 0.05
    assert factors[0] > 0


def test_the_encoder_has_its_own_learning_rate(scenes: Path) -> None:
    still = Schedule(lr=1e-2, encoder_lr_scale=1e-12, weight_decay=0, warmup_frac=0, decay="poly")
    torch.manual_seed(0)
    before: Any = build(BACKBONES["tiny"], 21)
    after: Any = train(scenes, protocol(), still)[0]
    assert torch.allclose(before.encoder.stages[0][0].weight, after.encoder.stages[0][0].weight, atol=1e-7)
    assert not torch.allclose(before.decoder.heads[0].weight, after.decoder.heads[0].weight, atol=1e-4)


def test_ignored_pixels_do_not_count() -> None:
    loss = SegmentationLoss(LOSS, np.array([1.0, 2.0, 3.0]))
    logits = torch.randn(2, 3, 6, 6)
    labels = torch.randint(0, 3, (2, 6, 6))
    labels[:, :3] = 255
    changed = logits.clone()
    changed[:, :, :3] = torch.randn(2, 3, 3, 6)
    torch.testing.assert_close(loss(logits, labels), loss(changed, labels))
    assert loss(logits, torch.full_like(labels, 255)) == 0


class ByBrightness(nn.Module):
    """A fake network: class 1 where the image is bright; any size, no context."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([0.5 - images, images - 0.5], dim=1)


@pytest.mark.parametrize("window", [None, [20, 24]])
def test_prediction_covers_the_frame_at_the_labels_resolution(window: list[int] | None) -> None:
    rng = np.random.default_rng(0)
    image = (rng.random((51, 67)) > 0.5).astype(np.uint8) * 255
    settings = protocol(window_px=window, stride_px=window and [13, 15])
    frames = [Decoded("a", "g", image, image), Decoded("b", "g", image, np.zeros((102, 134), np.uint8))]
    network: Network = ByBrightness()  # type: ignore[assignment]
    (_, native), (_, doubled) = predict(network, frames, settings, ignore_progress)
    assert np.array_equal(native, image > 0)
    assert doubled.shape == (102, 134)


def test_an_output_that_is_not_finite_is_not_scored_as_background() -> None:
    class Broken(ByBrightness):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * float("nan")

    network: Network = Broken()  # type: ignore[assignment]
    frame = Decoded("a", "g", np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8))
    with pytest.raises(DivergedError, match="output for a is not finite"):
        list(predict(network, [frame], protocol(), ignore_progress))


@pytest.mark.parametrize(
    ("size", "window", "stride"), [(640, 512, 341), (480, 512, 341), (512, 512, 341), (1000, 100, 70)]
)
def test_windows_cover_the_image_and_stay_inside(size: int, window: int, stride: int) -> None:
    starts = _offsets(size, window, stride)
    covered = {i for start in starts for i in range(start, min(size, start + window))}
    assert covered == set(range(size))
    assert len(starts) == len(set(starts))
    assert max(starts) + window <= max(size, window)
