"""How well sam-tiny answers prompts, beside an untrained model, the classical teacher and trivial answers. JSON lines.

python tests/benchmarks/sam_tiny.py [DATA] [--weights FILE]    DATA: a folder that holds hit-uav, else rendered scenes only

A point is put where a mask is thickest (scenes) or in the middle of a car's box (hit-uav val); a box is the mask's own. IoUs
are means over things, at the frame's own resolution. The disc's radius is the best for the very things that it is scored on.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from skimage.segmentation import felzenszwalb

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from bench.cli.corpora import recipe_of  # noqa: E402
from bench.sam_tiny.__main__ import begin  # noqa: E402
from bench.scenes import render  # noqa: E402
from bench.targets import open_target  # noqa: E402
from pretrain_sources.hashing import derive_seed  # noqa: E402
from pretrain_sources.image_files import decode_thermal  # noqa: E402
from pretrain_sources.recipe import SamTeacher  # noqa: E402
from pretrain_sources.teachers import open_teacher  # noqa: E402
from pretrain_sources.teachers.sam_tiny import build  # noqa: E402
from pretrain_sources.teachers.sam_weights import SHIPPED, load_tensors  # noqa: E402

FRAMES = 40  # rendered ones, 480 x 640, from seeds that training never draws
LEAST_PX = 100
AUTOMATIC = 6  # frames of either kind on which masks are drawn without prompts
CAR = 1  # category of the annotation
SCALES = (50, 400)  # of the classical segments
RADII = range(3, 80)


@dataclass(frozen=True)
class Thing:
    """A mask (H, W) and the point (x, y) that asks for it."""

    mask: np.ndarray
    point: tuple[float, float]

    @property
    def box(self) -> np.ndarray:
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


Frame = tuple[np.ndarray, list[Thing]]


def scenes() -> Iterator[Frame]:
    for number in range(FRAMES):
        scene = render(np.random.default_rng(derive_seed("sam-tiny held out", number)), (480, 640))
        things = []
        for instance in range(1, int(scene.instances.max()) + 1):
            mask = scene.instances == instance
            if mask.sum() >= LEAST_PX:
                depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
                y, x = np.unravel_index(depth.argmax(), depth.shape)
                things.append(Thing(mask, (float(x) + 0.5, float(y) + 0.5)))
        yield scene.thermal, things


def cars(data: Path) -> Iterator[Frame]:
    """Every car of hit-uav's val frames, as its oriented box filled."""
    boxes = json.loads((data / "hit-uav" / "oriented_boxes" / "labelled.json").read_text())
    for frame in open_target("hit-uav", data).splits["val"]:
        thermal = decode_thermal(frame.image.read_bytes())
        things = []
        for found in boxes[frame.image.name]:
            x, y, width, height, turn = found["bbox_xywht"]
            mask = np.zeros(thermal.shape, np.uint8)
            corners = cv2.boxPoints(((x, y), (width, height), float(np.degrees(turn))))
            cv2.fillPoly(mask, [corners.round().astype(np.int32)], 1)
            if (
                found["category_id"] == CAR
                and mask[min(int(y), thermal.shape[0] - 1), min(int(x), thermal.shape[1] - 1)]
            ):
                things.append(Thing(mask.astype(bool), (x, y)))
        yield thermal, things


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def answers(model: Sam, frames: list[Frame]) -> dict:
    """What a model says to every thing's point and box."""
    predictor, rows = SamPredictor(model), []
    for thermal, things in frames:
        predictor.set_image(np.repeat(thermal[..., None], 3, axis=2))
        for thing in things:
            masks, predicted, _ = predictor.predict(np.array([thing.point]), np.ones(1), multimask_output=True)
            ious = [iou(mask, thing.mask) for mask in masks]
            boxed, _, _ = predictor.predict(box=thing.box, multimask_output=False)
            best = int(predicted.argmax())
            rows.append((ious[best], max(ious), iou(boxed[0], thing.mask), float(predicted[best])))
    point, oracle, box, predicted = np.array(rows).T
    correlation = float(np.corrcoef(predicted, point)[0, 1]) if predicted.std() else None
    return {"point": point.mean(), "oracle": oracle.mean(), "box": box.mean(), "correlation": correlation}


def trivial(frames: list[Frame]) -> dict:
    """A disc at the point, the box filled, and the classical segment under the point."""
    discs, boxes = [], []
    segments: dict[float, list[float]] = {scale: [] for scale in SCALES}
    for thermal, things in frames:
        parts = {scale: felzenszwalb(thermal, scale=scale, sigma=0.8, min_size=20) for scale in SCALES}
        y, x = np.mgrid[: thermal.shape[0], : thermal.shape[1]] + 0.5
        for thing in things:
            away = np.hypot(x - thing.point[0], y - thing.point[1])
            discs.append([iou(away < radius, thing.mask) for radius in RADII])
            x0, y0, x1, y1 = thing.box
            filled = np.zeros_like(thing.mask)
            filled[y0:y1, x0:x1] = True
            boxes.append(iou(filled, thing.mask))
            for scale, part in parts.items():
                under = part == part[int(thing.point[1]), int(thing.point[0])]
                segments[scale].append(iou(under, thing.mask))
    means = np.mean(discs, axis=0)
    result = {f"classical, scale {scale}": {"point": np.mean(found)} for scale, found in segments.items()}
    return result | {
        f"disc of {RADII[int(means.argmax())]} px": {"point": means.max()},
        "box filled": {"box": np.mean(boxes)},
    }


def automatic(frames: list[Frame], settings: SamTeacher) -> dict:
    """Masks without prompts: how many a frame, and what is in none of them."""
    draw, counts, uncovered = open_teacher(settings, Path()), [], []
    for thermal, _ in frames[:: max(1, len(frames) // AUTOMATIC)][:AUTOMATIC]:
        masks = draw(thermal).masks
        counts.append(len(masks))
        uncovered.append(1 - float(masks.any(0).mean()) if len(masks) else 1.0)
    return {"masks": counts, "uncovered": np.mean(uncovered)}


def trained(path: Path) -> Sam:
    model = build()
    model.load_state_dict(load_tensors(path))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--weights", type=Path, default=SHIPPED["sam_tiny"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kinds = {"scenes": list(scenes())}
    if asked.data is not None and (asked.data / "hit-uav").is_dir():
        kinds["hit-uav val cars"] = list(cars(asked.data))
    for kind, frames in kinds.items():
        count = sum(len(things) for _, things in frames)
        rows = {
            "sam-tiny": answers(trained(asked.weights), frames),
            "untrained": answers(begin(0, Path("weights")), frames),
        }
        for name, row in (rows | trivial(frames)).items():
            print(json.dumps({"on": kind, "things": count, "what": name} | rounded(row)), flush=True)
        own = recipe_of("satir/sam-tiny", None, {}).teacher.model_dump()
        at_sams = SamTeacher(model="sam_tiny", points_per_side=own["points_per_side"]).model_dump()
        for what, fields in {"automatic masks, SAM's thresholds": at_sams, "automatic masks, its card's": own}.items():
            settings = SamTeacher(**fields | {"checkpoint": str(asked.weights)})
            print(json.dumps({"on": kind, "what": what} | rounded(automatic(frames, settings))), flush=True)


def rounded(row: dict) -> dict:
    return {name: round(float(value), 3) if isinstance(value, float) else value for name, value in row.items()}


if __name__ == "__main__":
    main()
