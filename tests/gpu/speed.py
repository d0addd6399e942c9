"""How fast: training against a plain loop, labelling against segment-anything, scoring; and what SODA's matrix would take."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from setting import Row, Setting, data_of, frames_of, network_of, row

from bench.plan.matrix import load_matrix
from bench.spec import Protocol
from bench.train import devices, loop
from bench.train.loop import Training, fit, predict
from bench.train.stages import scored
from pretrain_sources.recipe import SamTeacher
from pretrain_sources.teachers import open_teacher

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import training as loops

POOL = 100_000  # images of the paper's pool
TEST = {"val": 100, "test": 450}  # frames of SODA's splits, about
SMALL_SAM = "tiny_sam:build_least"


def training(setting: Setting) -> list[Row]:
    """Measure images a second of a plain loop and of ours, what ours waits for, and how busy the GPU is."""
    rows = []
    for backbone in ("fpn-efficientnet-lite0",) if setting.small else ("segformer-b0", "upernet-convnext-tiny"):
        protocol, target = setting.protocol(), setting.target()
        with setting.as_gpu():
            device = devices.device_of(protocol).torch
            loops.WARM, loops.STEPS = (1, 4) if setting.small else (20, 80)
            plain = _a_step(loops.users_loop(network_of(backbone, 2).spec, target, protocol, device))
            own, waits, busy = _ours(backbone, setting, protocol)
            with _unrepeatable():
                free, _, _ = _ours(backbone, setting, protocol)
        rates = [protocol.batch / each for each in (own, plain)]
        size = "x".join(map(str, protocol.crop_px))
        what = f"training, {backbone}, batch {protocol.batch} of {size}, {protocol.precision}"
        small = "small" if backbone in ("segformer-b0", "fpn-efficientnet-lite0") else "large"
        aim = 2.0 if small == "small" else 1.0
        rows.append(row(what, f"{rates[0]:.0f} images/s"))
        ratio = rates[0] / rates[1]
        rows.append(
            row(f"{what}: against a plain loop ({rates[1]:.0f})", f"{ratio:.2f} x", f">= {aim:.0f} x", ratio >= aim)
        )
        rows.append(row(f"{what}: share that waits for data", f"{waits:.0%}", "<= 10 %", waits <= 0.1))
        if busy is not None:
            rows.append(row(f"{what}: GPU busy", f"{busy:.0%}", ">= 90 %", busy >= 0.9))
        rows.append(row(f"{what}: cost of repeatable numbers", f"{own / free - 1:+.0%}"))
    return rows


def _ours(backbone: str, setting: Setting, protocol: Protocol) -> tuple[float, float, float | None]:
    """Return seconds a step, the share of them that waits for data, and the share in which the GPU computes (None: a CPU)."""
    warm, steps = (1, 4) if setting.small else (20, 220)
    target = setting.target()
    seen: list[tuple[int, float, float]] = []
    waited = [0.0]

    def stamp(done: int, total: int, /, **facts: float) -> None:
        seen.append((done, time.perf_counter(), waited[0]))

    loop.LOOKED_EVERY_S = 0.0 if setting.small else 1.0
    with devices.computing(protocol), _timed_loading(waited):
        batches, loss = data_of(target, protocol, steps)
        fit(
            network_of(backbone, len(target.spec.classes)),
            batches,
            Training(protocol, protocol.default, loss, steps, 0),
            stamp,
        )
        first, last = next(one for one in seen if one[0] >= warm), seen[-1]
        each = (last[1] - first[1]) / (last[0] - first[0])
        share = (last[2] - first[2]) / (last[1] - first[1])
        busy = _busy(backbone, setting, protocol) if setting.device == "cuda" else None
    return each, share, busy


def _busy(backbone: str, setting: Setting, protocol: Protocol) -> float:
    """Return the share of the time in which a kernel runs, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    target = setting.target()
    batches, loss = data_of(target, protocol, 60)
    net = network_of(backbone, len(target.spec.classes))
    begun: list[float] = []
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:

        def stamp(done: int, total: int, /, **facts: float) -> None:
            begun.append(time.perf_counter())

        loop.LOOKED_EVERY_S = 0.0
        fit(net, batches, Training(protocol, protocol.default, loss, 60, 0), stamp)
    spans = sorted(
        (event.time_range.start, event.time_range.end) for event in profiler.events() if event.time_range.end > 0
    )
    spans = spans[len(spans) // 3 :]  # without the warm-up
    computing, end = 0.0, spans[0][0]
    for start, stop in spans:  # kernels may overlap
        computing += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return computing / (end - spans[0][0])


def labels(setting: Setting) -> list[Row]:
    """Label frames with SAM of random weights, by the package's own generator and by the teacher."""
    rows = []
    size = (64, 96) if setting.small else (480, 640)
    frames = [frame.image for frame in frames_of(setting.target(), setting.protocol())[:3]]
    for model in (SMALL_SAM,) if setting.small else ("vit_b", "vit_h"):
        checkpoint = setting.out / f"{model.partition(':')[0]}.pth"
        sam = _random_sam(model, checkpoint)
        options = {
            "points_per_side": 4 if setting.small else 32,
            "pred_iou_thresh": 0.88,
            "stability_score_thresh": 0.0,
        }
        settings = SamTeacher.model_validate({"model": model, "checkpoint": str(checkpoint.absolute())} | options)
        ours = open_teacher(settings, setting.out, setting.device)
        stock = SamAutomaticMaskGenerator(sam.to(setting.device), **options)
        theirs = torch.autocast(setting.device, torch.float16, enabled=setting.device == "cuda")(stock.generate)
        colour = [np.repeat(frame[..., None], 3, axis=2) for frame in frames]
        ours(frames[0]), theirs(colour[0])  # warm
        own_s, own = _drawn(ours, frames)
        stock_s, other = _drawn(theirs, colour)
        same = np.mean([_same(a.masks, [m["segmentation"] for m in b]) for a, b in zip(own, other, strict=True)])
        what = f"labelling {size[1]} x {size[0]} with {model}, random weights"
        count = sum(len(a.masks) for a in own) // len(own)
        rows.append(row(what, f"{own_s:.2f} s an image, {count} masks"))
        ratio = stock_s / own_s
        rows.append(row(f"{what}: against segment-anything ({stock_s:.2f} s)", f"{ratio:.2f} x", ">= 1 x", ratio >= 1))
        rows.append(row(f"{what}: same masks", f"{same:.1%}", ">= 99 %", bool(same >= 0.99)))
        checkpoint.unlink()
    return rows


def _random_sam(model: str, checkpoint: Path) -> Any:
    """Build SAM with random weights that predict a high IoU for a part of the masks, and save them."""
    import tiny_sam

    torch.manual_seed(0)
    sam = tiny_sam.build_least() if model == SMALL_SAM else sam_model_registry[model]()
    with torch.no_grad():
        head = sam.mask_decoder.iou_prediction_head.layers[-1]
        head.bias.copy_(torch.tensor([0.99, 0.97, 0.2, 0.1]))
        head.weight.mul_(0.05)
    torch.save(sam.state_dict(), checkpoint)
    return sam.eval()


def _drawn(draw: Callable[[Any], Any], frames: list[Any]) -> tuple[float, list[Any]]:
    begun = time.perf_counter()
    made = [draw(frame) for frame in frames]
    return (time.perf_counter() - begun) / len(frames), made


def _same(own: Any, theirs: list[Any]) -> float:
    """Return the share of masks that are equal up to one pixel in a hundred."""
    if len(own) != len(theirs):
        return 0.0
    if not len(own):
        return 1.0
    pairs = zip(own, theirs, strict=True)
    return float(np.mean([(a & b).sum() >= 0.99 * (a | b).sum() for a, b in pairs]))


def scoring(setting: Setting) -> list[Row]:
    """Count frames predicted and scored a second."""
    protocol, target = setting.protocol(), setting.target()
    backbone = "fpn-efficientnet-lite0" if setting.small else "segformer-b0"
    frames = frames_of(target, protocol, "test") * (1 if setting.small else 10)
    classes = len(target.spec.classes)
    net = network_of(backbone, classes)
    rates = []
    with setting.as_gpu(), devices.computing(protocol):
        for _ in range(2):  # the first one warms up
            begun = time.perf_counter()
            count = len(list(scored(predict(net, frames, protocol, lambda *_, **__: None), classes, protocol)))
            rates.append(count / (time.perf_counter() - begun))
    what = f"predicting and scoring {setting.size[1]} x {setting.size[0]}, {backbone}"
    return [row(what, f"{rates[-1]:.0f} frames/s")]


def hours(setting: Setting) -> list[Row]:
    """Forecast soda-satir from the rates of the other steps, on one GPU with one worker."""
    rates: dict[str, float] = {}
    for step in ("training", "labels", "scoring"):
        path = setting.out / f"{step}.json"
        if not path.is_file():
            raise RuntimeError(f"no forecast: the step {step} has no result")
        for one in json.loads(path.read_text())["rows"]:
            rates[step] = rates.get(step) or float(one["value"].split()[0].rstrip("x%"))
    matrix = load_matrix("soda-satir")
    protocol, steps, drawn = matrix.protocol, 0, set()
    trials = protocol.trials * protocol.tune_replicates
    for cell in matrix.cells:
        card = matrix.cards[cell.source]
        tuned = protocol.finetune_steps + (protocol.pretrain_steps or 0 if card.long else 0)
        steps += (trials + protocol.replicates) * tuned
        if card.pretrains:
            steps += protocol.replicates * protocol.steps_on(POOL)
        if card.recipe is not None and card.recipe.teacher.kind == "sam":
            drawn.add(card.recipe.teacher)
    train_h = steps * protocol.batch / rates["training"] / 3600
    label_h = len(drawn) * POOL * rates["labels"] / 3600
    scored_n = len(matrix.cells) * (trials * TEST["val"] + protocol.replicates * TEST["test"])
    score_h = scored_n / rates["scoring"] / 3600
    what = f"soda-satir, {len(matrix.cells)} cells, {POOL:,} images"
    model = "a small SAM" if setting.small else "vit_b"
    return [
        row(f"{what}: training ({steps:,} steps)", f"{train_h:.0f} GPU-hours"),
        row(f"{what}: labelling with {model} ({len(drawn)} teacher)", f"{label_h:.0f} GPU-hours"),
        row(f"{what}: scoring", f"{score_h:.1f} GPU-hours"),
    ]


def _a_step(steps: Iterator[None]) -> float:
    times = [time.perf_counter() for _ in steps]
    return (times[-1] - times[loops.WARM]) / (len(times) - 1 - loops.WARM)


@contextlib.contextmanager
def _timed_loading(waited: list[float]) -> Iterator[None]:
    """Add the time that `fit` waits for its batches to `waited`."""
    real = loop._loaded

    def timed(*given: Any) -> Iterator[Any]:
        batches = real(*given)
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            waited[0] += time.perf_counter() - begun
            if batch is None:
                return
            yield batch

    with mock.patch.object(loop, "_loaded", timed):
        yield


def _unrepeatable() -> contextlib.AbstractContextManager[object]:
    """Train without care for repeatable numbers, to see what it costs."""
    return mock.patch.object(devices, "computing", return_value=contextlib.nullcontext())
