"""Masks of a SAM of transformers: that package's own mask-generation pipeline against the teacher's, one thread. JSON lines.

python tests/benchmarks/hub_speed.py DATA TARGET
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import pipeline
from transformers.utils import logging

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import hub_sams  # noqa: E402
import tiny_sam  # noqa: E402
from sam_speed import POINTS, Frame, compared, frames_of  # noqa: E402

from pretrain_sources.recipe import TransformersTeacher  # noqa: E402
from pretrain_sources.teachers import open_teacher  # noqa: E402

NAME = "me/sam"


def row(points: int, weights: Path, frames: list[Frame]) -> dict:
    settings = {"model": NAME, "points_per_side": points} | tiny_sam.THRESHOLDS
    folder = str(weights / NAME)
    generate = pipeline("mask-generation", model=folder, image_processor=folder, device="cpu")

    def stock(frame: Frame) -> list[np.ndarray]:
        image = Image.fromarray(frame).convert("RGB")
        made = generate(image, points_per_crop=points, points_per_batch=64, **tiny_sam.THRESHOLDS)
        return [mask.numpy() for mask in made["masks"]]

    return {"points": points} | compared(
        open_teacher(TransformersTeacher.model_validate(settings), weights), stock, frames
    )


def main(data: Path, name: str) -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        hub_sams.write_tiny(Path(folder))
        for points in POINTS:
            print(json.dumps(row(points, Path(folder), frames_of(data, name))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
