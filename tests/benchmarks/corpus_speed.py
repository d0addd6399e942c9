"""A pool of 100,000 tiny files: listed and hashed, listed again, and masks turned into label maps. Prints JSON lines.

python tests/benchmarks/corpus_speed.py
"""

import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from pretrain_sources.corpus.labels import encode_masks, make_label
from pretrain_sources.pool import read_pool
from pretrain_sources.recipe import Recipe
from pretrain_sources.teachers import Masks

FILES = 100_000


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare_listing(root: Path) -> int:
    """The reference: names and sizes, nothing else."""
    return sum(entry.stat().st_size for entry in os.scandir(root))


def pool(folder: Path) -> None:
    root = folder / "pool"
    root.mkdir()
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(buffer, "PNG")
    for i in range(FILES):
        (root / f"{i:06d}.png").write_bytes(buffer.getvalue() + i.to_bytes(4, "big"))
    cache = folder / "cache.json"
    bare = seconds(lambda: bare_listing(root))
    for what in ("hashed", "listed again"):
        took = seconds(lambda: read_pool(root, cache=cache))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"what": what, "files": FILES, "s": took, "bare_s": bare, "peak_mb": peak}), flush=True)


def labels() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((100, 512, 640), bool)
    for mask in masks:
        y, x, side = rng.integers(0, 400), rng.integers(0, 500), rng.integers(10, 140)
        mask[y : y + side, x : x + side] = True
    scores = rng.random(100).astype(np.float32)
    drawn = encode_masks(Masks(masks, scores, scores, ((),) * 100))
    took = [seconds(lambda: make_label(drawn, Recipe(), "x")) for _ in range(20)]
    plain = [seconds(lambda: _plain(masks, scores)) for _ in range(20)]
    row = {"what": "label map", "ms": 1000 * float(np.median(took)), "plain_ms": 1000 * float(np.median(plain))}
    print(json.dumps(row), flush=True)


def _plain(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The reference: the authors' loop over nine masks that lie in memory."""
    label = np.zeros(masks.shape[1:], np.uint8)
    for rank, i in enumerate(np.argsort(-scores)[:9], start=1):
        label[masks[i]] = rank
    return label


if __name__ == "__main__":
    labels()
    with tempfile.TemporaryDirectory() as name:
        pool(Path(name))
