"""tiny-scenes: a few dozen simple rendered frames in SODA's layout, for a machine with no data. Synthetic; proves nothing.

Warm and cold shapes over a sky and a ground, then blur, sensor noise and gain control to 8 bits.
"""

import io
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from bench.spec import derive_seed
from bench.targets.soda import CLASSES, LISTS
from results.store import write_atomic

SIZE = (120, 160)  # height, width in pixels
COUNTS = {"train": 60, "test": 30}
# degrees above or below the air, by material; drawn anew in each frame around these
_WARMTH = {
    "sky": -22,
    "grass": -2,
    "road": 3,
    "sidewalk": 2,
    "building": 6,
    "tree": 0,
    "pole": 1,
    "car": 12,
    "person": 16,
}

Box = tuple[float, float, float, float]


def make(folder: Path, seed: int = 0) -> int:
    """Writes the frames below `folder` in SODA's layout; returns how many. The same seed gives the same pixels.

    `folder` is whole or not there: it is made aside and renamed.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    base = aside / "InfraredSemanticLabel"
    number = 0
    for split, count in COUNTS.items():
        stems = [f"{number + i:04d}" for i in range(count)]
        for stem in stems:
            thermal, labels = render(np.random.default_rng(derive_seed("tiny-scenes", seed, stem)))
            write_atomic(base / "JPEGImages" / f"{stem}.jpg", _encode(thermal, "JPEG", quality=90))
            write_atomic(base / "SegmentationClassOne" / f"{stem}.png", _encode(labels, "PNG"))
        write_atomic(base / LISTS[split], "".join(f"{stem}\n" for stem in stems).encode())
        number += count
    aside.rename(folder)
    return number


def render(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(thermal, labels), both (H, W) uint8: one frame."""
    height, width = SIZE
    horizon = height * rng.uniform(0.35, 0.55)
    heat = Image.new("F", (width, height))
    labels = Image.new("L", (width, height))

    def paint(name: str, shape: str, box: Box | list[tuple[float, float]]) -> None:
        warmth = _WARMTH[name] + rng.normal(0, 2.5)
        for image, value in ((heat, warmth), (labels, CLASSES.index(name))):
            getattr(ImageDraw.Draw(image), shape)(box, fill=value)

    paint("sky", "rectangle", (0, 0, width, horizon))
    paint("grass", "rectangle", (0, horizon, width, height))
    left, right = sorted(rng.uniform(0, width, 2))
    paint(
        "sidewalk",
        "polygon",
        [(width * 0.45, horizon), (width * 0.55, horizon), (right + 45, height), (left - 45, height)],
    )
    paint(
        "road", "polygon", [(width * 0.46, horizon), (width * 0.54, horizon), (right + 30, height), (left - 30, height)]
    )
    for _ in range(rng.integers(1, 4)):
        x, w, top = rng.uniform(0, width), rng.uniform(20, 50), rng.uniform(0, horizon * 0.7)
        paint("building", "rectangle", (x, top, x + w, horizon + 2))
    for _ in range(rng.integers(1, 5)):
        x, size = rng.uniform(0, width), rng.uniform(8, 22)
        paint("tree", "ellipse", (x, horizon - 1.6 * size, x + size, horizon + 2))
    for name, shape, wide, tall, most in (
        ("pole", "rectangle", 0.06, 1.4, 3),
        ("car", "rectangle", 1.0, 0.55, 4),
        ("person", "ellipse", 0.35, 1.0, 6),
    ):
        for _ in range(rng.integers(0, most)):
            foot = rng.uniform(horizon + 5, height)
            size = 6 + 0.45 * (foot - horizon)  # nearer is larger
            x = rng.uniform(0, width)
            paint(name, shape, (x, foot - tall * size, x + max(1.0, wide * size), foot))
    return _expose(np.asarray(heat), rng), np.asarray(labels)


def _expose(heat: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A temperature map as a poor camera shows it: blur, column noise, pixel noise, gain control to 8 bits."""
    noisy = heat + rng.normal(0, 1.2, heat.shape) + rng.normal(0, 0.6, (1, heat.shape[1]))
    low, high = np.percentile(noisy, (1, 99))
    grey = np.clip((noisy - low) / (high - low + 1e-6), 0, 1) * 255
    return np.asarray(Image.fromarray(grey.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7)))


def _encode(pixels: NDArray[np.uint8], form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()
