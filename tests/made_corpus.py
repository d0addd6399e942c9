"""Corpora made by the fake teacher from a pool of noise images."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from pretrain_sources.corpus.mask_cache import MaskCache
from pretrain_sources.corpus.writer import CorpusWriter
from pretrain_sources.pool import read_pool
from pretrain_sources.recipe import PythonTeacher, Recipe


def write_pool(root: Path) -> Path:
    """Seven images of noise."""
    root.mkdir()
    for i in range(7):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"frame_{i:02d}.png")
    return root


def teacher(**settings: bool | int | float | str | None) -> PythonTeacher:
    return PythonTeacher(entry="fake_teacher:make", version="1", settings=settings)


def writer(out: Path, images: Path, recipe: Recipe | None = None) -> CorpusWriter:
    return CorpusWriter(out, images, recipe or Recipe(), {"kind": "fake"})


def make(
    pool: Path, out: Path, recipe: Recipe | None = None, kept: Path | None = None, **settings: bool | int | str
) -> None:
    masks = MaskCache(teacher(**settings), pool, kept or out / ".teacher").over(read_pool(pool).images)
    writer(out, pool, recipe).write(masks, total=7)
    if kept is None:
        shutil.rmtree(out / ".teacher")


def bytes_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_ready(pool: Path, folder: Path) -> Path:
    """Images and label PNGs, as SATIR would be published: `ready` in this folder, next to the corpus `made`."""
    make(pool, folder / "made")
    ready = folder / "ready"
    for name in ("images", "labels"):
        shutil.copytree(folder / "made" / name, ready / name)
    return ready


def write_groups(pool: Path) -> None:
    """Give the pool groups that do not follow from names: every other image is of the second flight."""
    lines = [f"{path.name},flight {i % 2}" for i, path in enumerate(sorted(pool.iterdir()))]
    (pool / "groups.csv").write_text("\n".join(["file,group", *lines]))
