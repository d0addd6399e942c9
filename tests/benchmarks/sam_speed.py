"""Masks of the automatic generator: segment-anything's own against the teacher's, one thread, a small model. JSON lines.

python tests/benchmarks/sam_speed.py DATA TARGET
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny_sam  # noqa: E402

from bench.targets import open_target  # noqa: E402
from pretrain_sources.recipe import SamTeacher  # noqa: E402
from pretrain_sources.teachers import Teacher, open_teacher  # noqa: E402

Frame = np.ndarray  # (H, W) uint8
FRAMES = 3
POINTS = (16, 32)  # a side


def timed(draw: Callable[[Frame], object], image: Frame) -> tuple[float, Any]:
    start = time.perf_counter()
    drawn = draw(image)
    return time.perf_counter() - start, drawn


def row(points: int, checkpoint: Path, frames: list[Frame]) -> dict:
    options = {"points_per_side": points} | tiny_sam.THRESHOLDS
    settings = SamTeacher.model_validate({"model": tiny_sam.ENTRY, "checkpoint": str(checkpoint)} | options)
    model = tiny_sam.build()
    model.load_state_dict(torch.load(checkpoint))
    generator = SamAutomaticMaskGenerator(model, **options)

    def stock(frame: Frame) -> list[np.ndarray]:
        return [mask["segmentation"] for mask in generator.generate(np.repeat(frame[..., None], 3, axis=2))]

    return {"points": points} | compared(open_teacher(settings, checkpoint.parent), stock, frames)


def compared(ours: Teacher, stock: Callable[[Frame], list[np.ndarray]], frames: list[Frame]) -> dict:
    """Time both on every frame and compare their masks."""
    ours(frames[0])
    times, masks, same = [], 0, True
    for i, frame in enumerate(frames):
        runs = [lambda frame=frame: timed(ours, frame), lambda frame=frame: timed(stock, frame)]
        first, second = (run() for run in runs[:: 1 if i % 2 else -1])  # in turn, because the machine's speed drifts
        (ms, drawn), (stock_ms, theirs) = (first, second) if i % 2 else (second, first)
        times.append((ms * 1e3, stock_ms * 1e3))
        masks += len(drawn.masks)
        same &= len(theirs) == len(drawn.masks)
        same &= all(iou(a, b) >= 0.99 for a, b in zip(drawn.masks, theirs, strict=False))
    ms, stock_ms = (median(values) for values in zip(*times, strict=True))
    ratio = median(theirs / mine for mine, theirs in times)
    return {"ms": ms, "stock_ms": stock_ms, "ratio": ratio, "masks": masks, "same": same}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def frames_of(data: Path, name: str) -> list[Frame]:
    """Some frames of a target."""
    paths = [frame.image for frame in open_target(name, data).splits["train"]]
    return [np.array(Image.open(path).convert("L")) for path in paths[:: len(paths) // FRAMES][:FRAMES]]


def main(data: Path, name: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "tiny.pth"
        tiny_sam.write_checkpoint(checkpoint)
        for points in POINTS:
            print(json.dumps(row(points, checkpoint, frames_of(data, name))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
