"""Devices and precision. No GPU here: fake ones compute on the CPU; what needs a real one is in tests/gpu."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import fake_gpus
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Bench, protocol_fields, write_matrix
from pydantic import ValidationError
from test_executors import Silent
from test_loop import ignore_progress, train

from backbones import network
from backbones.registry import BACKBONES
from bench import BenchError, DivergedError
from bench.plan.matrix import load_matrix
from bench.plan.outcome import Context
from bench.plan.plan import Sweep, make_plan
from bench.plan.units import Unit
from bench.run import executors
from bench.run.run import How, places_of
from bench.shipped import load_protocol
from bench.spec import Protocol
from bench.spec.parts import Loss, Schedule
from bench.targets import open_target
from bench.train import devices, repeatable
from bench.train.batches import Decoded
from bench.train.loop import predict
from bench.train.loss import SegmentationLoss
from bench.train.stages import scored
from pretrain_sources.image_files import IGNORE
from results.record_files import read_records
from results.store import Store


def protocol(**changes: object) -> Protocol:
    return Protocol.model_validate(protocol_fields(**changes))


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four GPUs of the T4's generation."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: f"Tesla T4 {number}")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda number: (7, 5))


# precision


def test_the_default_precision_leaves_every_fingerprint_as_it_is() -> None:
    plain, said = protocol(), protocol(precision="fp32")
    assert "precision" not in plain.model_dump()
    assert plain.identity_hash == said.identity_hash
    assert plain.pretraining_hash == said.pretraining_hash


def test_another_precision_is_another_board_and_another_pretraining() -> None:
    full, half = protocol(device="cuda"), protocol(device="cuda", precision="bf16")
    assert half.model_dump()["precision"] == "bf16"
    assert full.identity_hash != half.identity_hash
    assert full.pretraining_hash != half.pretraining_hash
    assert Protocol.model_validate(half.model_dump()) == half


@pytest.mark.parametrize("device", ["cpu", "any"])
def test_half_precision_is_for_gpus_alone(device: str) -> None:
    with pytest.raises(ValidationError, match="precision: bf16 needs device: cuda"):
        protocol(device=device, precision="bf16")


def test_smoke_runs_of_a_gpu_protocol_compute_in_full_precision_anywhere() -> None:
    smoke = load_protocol("soda-v1").smoke()
    assert (smoke.device, smoke.precision) == ("any", "fp32")
    assert Protocol.model_validate(smoke.model_dump()) == smoke


@pytest.mark.usefixtures("four_gpus")
def test_a_gpu_that_would_emulate_bf16_is_refused() -> None:
    with pytest.raises(
        devices.DeviceError, match=r"bf16, which the Tesla T4 0 \(compute capability 7.5\) only emulates"
    ):
        devices.device_of(protocol(device="cuda", precision="bf16"))
    device = devices.device_of(protocol(device="any"))
    assert (device.torch, device.name, device.gpu) == (torch.device("cuda", 0), "Tesla T4 0", 0)
    assert not devices.device_of(protocol()).is_gpu


def test_a_gpu_is_needed_where_the_protocol_says_so() -> None:
    with pytest.raises(
        devices.DeviceError, match="needs a CUDA GPU and this machine has none; try it on a CPU with --smoke"
    ):
        devices.device_of(protocol(device="cuda"))
    assert devices.device_of(protocol(device="any")).gpu is None


def test_a_gpu_computes_without_tf32_and_the_settings_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_of", fake_gpus.fake)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    interpolate = F.interpolate
    with devices.computing(protocol()):
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.are_deterministic_algorithms_enabled()
        assert F.interpolate is not interpolate
    assert not torch.are_deterministic_algorithms_enabled()
    assert F.interpolate is interpolate


# which GPUs


@pytest.mark.usefixtures("four_gpus")
def test_each_gpu_has_its_workers() -> None:
    anywhere = protocol(device="any")
    assert places_of(anywhere, How(), Silent()) == [0, 1, 2, 3]
    assert places_of(anywhere, How(jobs=2, gpus=[1, 3]), Silent()) == [1, 3, 1, 3]
    assert places_of(protocol(), How(jobs=2), Silent()) == [None, None]
    with pytest.raises(BenchError, match=r"--gpus 4: no such GPU; torch sees 0 Tesla T4 0, 1 Tesla T4 1, 2"):
        places_of(anywhere, How(gpus=[0, 4]), Silent())
    with pytest.raises(BenchError, match="--gpus: protocol test-v1 runs on a CPU"):
        places_of(protocol(), How(gpus=[0]), Silent())
    with pytest.raises(devices.DeviceError, match="only emulates"):
        places_of(protocol(device="cuda", precision="bf16"), How(), Silent())


def test_gpus_are_refused_where_there_is_none() -> None:
    with pytest.raises(BenchError, match="runs on a CPU here, as torch sees no CUDA GPU"):
        places_of(protocol(device="any"), How(gpus=[0]), Silent())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--gpus", "0,x"], "write numbers with commas"),
        (["--gpus", "0,,1"], "write numbers with commas"),
        (["--gpus", "1,1"], "a GPU is named twice"),
        (["--gpus", "-1"], "write numbers with commas"),
        (["--gpus", "0", "--executor", "inline"], "set CUDA_VISIBLE_DEVICES"),
    ],
)
def test_wrong_gpus_are_refused(bench: Bench, given: list[str], why: str) -> None:
    ended = bench("run", "--matrix", "demo", *given)
    assert ended.code == 1
    assert why in ended.err


@pytest.mark.parametrize(
    ("visible", "number", "wanted"), [(None, 2, "2"), ("3,1", 1, "1"), ("GPU-a, GPU-b", 1, "GPU-b"), ("", 0, "0")]
)
def test_a_worker_sees_its_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, number: int, wanted: str
) -> None:
    for name in (devices.NUMBER, devices.BESIDE):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv(devices.VISIBLE, visible or "")
    if visible is None:
        monkeypatch.delenv(devices.VISIBLE)
    devices.take_gpu(number, workers=4)
    assert os.environ[devices.VISIBLE] == wanted
    assert os.environ[devices.NUMBER] == str(number)
    assert int(os.environ[devices.BESIDE]) >= 1


class Kill(Silent):
    """Kills a worker once a final has begun to train."""

    done = False

    def progress(self, unit: Unit, done: int, total: int, /, **facts: float) -> None:
        if unit.kind == "final" and not self.done:
            self.done = True
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)


def run_on_four(scenes: Path, folder: Path, show: Silent, retry: tuple[str, ...] = ()) -> list[str]:
    """Run a cell of four replicates on four fake GPUs; return how its units ended."""
    matrix = load_matrix(str(write_matrix(folder, ("none",), device="any", replicates=4)))
    target = open_target("scenes", scenes)
    plan = make_plan(Sweep(matrix, Store(folder / "store"), scenes, folder, retry), target, None)
    context = Context(folder / "store", target, folder)
    return [outcome.status for _, outcome in executors.local(plan.todo, context, show, [0, 1, 2, 3])]


def test_every_worker_has_a_gpu_of_its_own_and_a_killed_one_loses_nothing(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_work", fake_gpus.work)
    show = Kill()
    assert sorted(run_on_four(scenes, tmp_path, show)) == ["failed", "ok", "ok", "ok", "ok"]
    assert show.done
    before, _ = read_records(Store(tmp_path / "store"))
    alive = {record.run: record for record in before if record.status == "ok"}
    assert len({record.provenance.gpu for record in alive.values() if record.provenance}) == 3
    assert run_on_four(scenes, tmp_path, Silent(), ("failed",)) == ["ok"], "only the killed run is left"
    records, unreadable = read_records(Store(tmp_path / "store"))
    assert not unreadable
    assert [record.status for record in records] == ["ok"] * 4
    assert all(record == alive[record.run] for record in records if record.run in alive)
    made = [record.provenance for record in records if record.provenance]
    assert all(one.device == f"Fake GPU {one.gpu}" and one.precision == "fp32" for one in made)
    shutil.rmtree(tmp_path / "store")
    assert run_on_four(scenes, tmp_path, Silent()) == ["ok"] * 5
    records, _ = read_records(Store(tmp_path / "store"))
    assert sorted(record.provenance.device for record in records if record.provenance) == [
        f"Fake GPU {n}" for n in range(4)
    ]


# the loop on a GPU: losses are looked at now and then


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_of", fake_gpus.fake)
    monkeypatch.setattr(devices, "loading_processes", lambda device: 0)


@pytest.mark.usefixtures("fake_gpu")
def test_looking_at_losses_now_and_then_changes_no_number(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def report(done: int, total: int, /, **facts: float) -> None:
        seen.append(done)

    seldom, history = train(scenes, protocol(), report=report)
    assert seen == [4], "nobody waits for a GPU at every step"
    monkeypatch.undo()
    often, expected = train(scenes, protocol())
    assert history == expected
    assert all(
        torch.equal(a, b) for a, b in zip(seldom.state_dict().values(), often.state_dict().values(), strict=True)
    )


@pytest.mark.usefixtures("fake_gpu")
def test_the_step_that_diverged_is_named_and_never_kept(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.train.loop.KEPT_EVERY_S", 0.0)
    monkeypatch.setattr("bench.train.loop.LOOKED_EVERY_S", 1e9)
    wild = Schedule(lr=1e30, encoder_lr_scale=1, weight_decay=0, warmup_frac=0, decay="poly")
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(DivergedError) as late:
        train(scenes, protocol(), wild, steps=20, checkpoint=checkpoint)
    assert not checkpoint.exists()
    monkeypatch.undo()
    with pytest.raises(DivergedError) as at_once:
        train(scenes, protocol(), wild, steps=20)
    assert str(late.value).partition(" at ")[2] == str(at_once.value).partition(" at ")[2]


@pytest.mark.usefixtures("fake_gpu")
def test_frames_are_predicted_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = network.build(BACKBONES["tiny"], 3)
    sizes = [(64, 96)] * 10 + [(32, 64)] + [(64, 96)] * 2
    rng = np.random.default_rng(0)
    frames = [
        Decoded(str(i), "", rng.integers(0, 255, size, np.uint8), np.zeros((size[0] // 2, size[1]), np.uint8))
        for i, size in enumerate(sizes)
    ]
    counts: list[int] = []
    forward: Callable[..., torch.Tensor] = net.forward
    net.forward = lambda images: (counts.append(len(images)), forward(images))[1]  # type: ignore[method-assign]
    together = {frame.id: pred for frame, pred in predict(net, frames, protocol(), ignore_progress)}
    assert counts == [8, 2, 1, 2]
    monkeypatch.undo()
    single = {frame.id: pred for frame, pred in predict(net, frames, protocol(), ignore_progress)}
    assert list(together) == list(single) == [frame.id for frame in frames]
    assert all((together[name] == single[name]).mean() > 0.999 for name in single)


# operations whose gradients are repeatable on a GPU


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(
    ("side", "wanted"), [((8, 10), (32, 40)), ((7, 5), (20, 21)), ((20, 20), (5, 7)), ((1, 3), (4, 4))]
)
def test_bilinear_resizing_equals_torchs(side: tuple[int, int], wanted: tuple[int, int], align: bool) -> None:
    images = torch.rand(2, 3, *side, requires_grad=True)
    own, theirs = (
        repeatable.bilinear(images, wanted, align),
        F.interpolate(images, wanted, mode="bilinear", align_corners=align),
    )
    assert torch.allclose(own, theirs, atol=1e-5)
    gradients = [torch.autograd.grad(made.square().sum(), images, retain_graph=True)[0] for made in (own, theirs)]
    assert torch.allclose(gradients[0], gradients[1], atol=1e-3)


@pytest.mark.parametrize("wanted", [1, 2, 3, 6, (4, 5), (None, 2)])
def test_adaptive_average_pooling_equals_torchs(wanted: repeatable.Pooled) -> None:
    images = torch.rand(2, 3, 7, 10)
    assert torch.allclose(repeatable.average_pool(images, wanted), F.adaptive_avg_pool2d(images, wanted), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["segformer-b0", "upernet-convnext-tiny", "fpn-efficientnet-lite0", "deeplabv3plus-resnet50"]
)
def test_networks_compute_the_same_with_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    for own in ("bilinear", "average_pool"):
        real = getattr(repeatable, own)
        monkeypatch.setattr(repeatable, own, lambda *given, own=own, real=real: (used.append(own), real(*given))[1])
    torch.manual_seed(0)
    net = network.build(BACKBONES[name], 3).eval()
    images = torch.rand(2, 1, 64, 96)
    expected = net(images)
    monkeypatch.setattr(repeatable, "_learns_on_gpu", lambda images: images.requires_grad)
    with repeatable.operations():
        assert torch.allclose(net(images), expected, atol=1e-4)
    assert used, "the network resizes somewhere"


def test_operations_on_a_cpu_are_torchs_own() -> None:
    images = torch.rand(1, 2, 5, 5, requires_grad=True)
    expected = F.interpolate(images, (9, 9), mode="bilinear")
    with repeatable.operations():
        assert torch.equal(F.interpolate(images, (9, 9), mode="bilinear"), expected)
        assert torch.equal(
            F.interpolate(images, scale_factor=2.0), F.interpolate(images, scale_factor=2.0, mode="nearest")
        )


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("ignored", [0.0, 0.5, 1.0])
def test_the_loss_on_a_gpu_is_that_on_a_cpu(background: bool, ignored: float) -> None:
    torch.manual_seed(0)
    settings = Loss(dice_background=background, class_weight_power=0.5, class_weight_cap=10)
    loss = SegmentationLoss(settings, np.array([1.0, 3.0, 10.0]))
    logits, labels = torch.randn(2, 3, 8, 9, requires_grad=True), torch.randint(0, 3, (2, 8, 9))
    labels[torch.rand(labels.shape) < ignored] = IGNORE
    own, theirs = loss._on_gpu(logits, labels), loss(logits, labels)
    assert torch.allclose(own, theirs, atol=1e-5)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (own, theirs)]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_scores_beside_a_gpu_are_those_on_a_cpu(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (40, 50)).astype(np.uint8)
    pairs = [(Decoded(str(i), "", label, label), rng.integers(0, 3, (40, 50)).astype(np.uint8)) for i in range(20)]
    plain = list(scored(iter(pairs), 3, protocol()))
    monkeypatch.setattr(devices, "device_of", fake_gpus.fake)
    monkeypatch.setattr(devices, "threads_beside", lambda: 4)
    threaded = list(scored(iter(pairs), 3, protocol()))
    for (confusion, weighted), (own, values) in zip(plain, threaded, strict=True):
        assert np.array_equal(confusion, own)
        assert np.array_equal(weighted, values)
