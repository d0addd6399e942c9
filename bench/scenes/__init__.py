"""scenes: synthetic thermal streets and rooms in SODA's layout and classes, for use without real frames."""

import errno
import io
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import BenchError
from bench.scenes.camera import expose, radiance
from bench.scenes.indoor import indoor
from bench.scenes.painter import Painter, Size
from bench.scenes.street import street
from pretrain_sources.hashing import derive_seed
from pretrain_sources.pool import BLOCK
from safe_io.files import aside_of, clear_leftovers_of

LISTS = {"train": "train_infrared.txt", "test": "test_infrared.txt"}  # SODA's
INDOORS = 0.35  # share of rooms
SIDES = (64, 640)  # shortest and longest side, in pixels
FRAMES = (
    3 * BLOCK,
    100_000,
)  # minimum and maximum number of labelled frames: at least a block each for train, val and test
TEST_BLOCKS = (2, 4)  # of five; the splits do not change when more frames are made
README_FILE = "README.txt"
README = """\
Rendered, synthetic thermal scenes in the layout and with the class ids of SODA. No camera saw any of them, and no number
measured on them says anything about real thermal images.

Made with: {command}

InfraredSemanticLabel/   images, label maps, and instance masks of 16 bits (0: no instance)
unlabelled/              other scenes, drawn in the same way, without labels
"""


@dataclass(frozen=True)
class Scene:
    """One rendered frame, all (H, W).

    Attributes:
        thermal: uint8 grey values. labels: uint8 class indices of SODA. instances: uint16, 0 for stuff, else 1..n; each is
            visible and has one class.
    """

    thermal: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint16]


def render(rng: np.random.Generator, size: Size) -> Scene:
    """Render a random scene of a size (height, width in pixels)."""
    dice = Random(int(rng.integers(2**62)))
    painter = (indoor if dice.random() < INDOORS else street)(rng, dice, size)
    ids = np.asarray(painter.ids)
    thermal = expose(radiance(painter, ids), painter.view, rng, dice)
    return Scene(thermal, *_truth(painter, ids))


def _truth(painter: Painter, ids: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    things = np.array([part.thing for part in painter.parts], np.int64)
    seen = np.bincount(np.take(things[:, 0], ids).ravel(), minlength=painter.instances + 1) > 0
    seen[0] = False
    number = np.where(seen, np.cumsum(seen), 0)
    return np.take(things[:, 1].astype(np.uint8), ids), np.take(number[things[:, 0]].astype(np.uint16), ids)


def draw(kind: str, number: int, size: Size, seed: int) -> Scene:
    """Render frame `number` of the `labelled` frames or the `unlabelled` pool; a pure function of its arguments."""
    return render(np.random.default_rng(derive_seed("scenes", seed, kind, number)), size)


def split_of(number: int) -> str:
    """Return the split of labelled frame `number`: of five blocks of 20, three are train and two test."""
    return "test" if number // BLOCK % 5 in TEST_BLOCKS else "train"


def command(n: int, size: Size, seed: int) -> str:
    """Return the command that makes these frames."""
    return f"bench data make scenes --n {n} --size {size[0]}x{size[1]} --seed {seed}"


def made_by(folder: Path, command: str) -> bool:
    """Return whether a command made the folder."""
    try:
        return f"Made with: {command}" in (folder / README_FILE).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return False


def size_of(text: str) -> Size:
    """Parse a size, HEIGHTxWIDTH.

    Raises:
        BenchError: the text has another form.
    """
    match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text.strip().lower())
    if not match:
        raise BenchError(f"--size {text}: must be HEIGHTxWIDTH in pixels, for example 240x320")
    return int(match[1]), int(match[2])


def make(
    folder: Path, n: int, size: Size, seed: int = 0, report: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Write `n` labelled frames in SODA's layout and a pool of `n` other frames; return the number of frames.

        InfraredSemanticLabel/JPEGImages/<stem>.jpg, SegmentationClassOne/<stem>.png, InstanceMasks/<stem>.png (16 bits)
        InfraredSemanticLabel/train_infrared.txt, test_infrared.txt    whole blocks of stems
        unlabelled/<stem>.jpg
        README.txt

    The same size and seed give the same bytes on the same type of processor with the same Python and packages; a larger `n`
    adds frames to the same splits. `folder` is written atomically: it is made under another name and renamed.

    Raises:
        BenchError: n or size is out of range, or the folder cannot be written or exists already.
    """
    if not FRAMES[0] <= n <= FRAMES[1]:
        why = f"train, val and test each need a block of {BLOCK}" if n < FRAMES[0] else "choose fewer"
        raise BenchError(f"--n {n}: the number of labelled frames must be {FRAMES[0]} to {FRAMES[1]}; {why}")
    if not all(SIDES[0] <= side <= SIDES[1] for side in size):
        raise BenchError(f"--size {size[0]}x{size[1]}: height and width must be {SIDES[0]} to {SIDES[1]} pixels each")
    clear_leftovers_of(folder)
    aside = aside_of(folder)
    try:
        _fill(aside, n, size, seed, report)
        if hasattr(os, "sync"):
            os.sync()  # otherwise a power cut could leave a folder of empty files
        aside.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise BenchError(f"{folder} exists already; delete it to make it again") from error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = (
            "free some space, or use fewer or smaller frames" if full else "choose another data folder with --data DIR"
        )
        raise BenchError(
            f"cannot write {folder}: {os.strerror(error.errno or 0)}; {fix}. No files were left behind"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return 2 * n


def _fill(folder: Path, n: int, size: Size, seed: int, report: Callable[[int, int], None]) -> None:
    base, pool = folder / "InfraredSemanticLabel", folder / "unlabelled"
    images, labels, instances = (base / name for name in ("JPEGImages", "SegmentationClassOne", "InstanceMasks"))
    for part in (images, labels, instances, pool):
        part.mkdir(parents=True)
    stems = [f"{i:05d}" for i in range(n)]
    for split, name in LISTS.items():
        (base / name).write_text("".join(f"{stem}\n" for i, stem in enumerate(stems) if split_of(i) == split))
    (folder / README_FILE).write_text(README.format(command=command(n, size, seed)))
    for i, stem in enumerate(stems):
        scene = draw("labelled", i, size, seed)
        (images / f"{stem}.jpg").write_bytes(_encode(scene.thermal, "JPEG", quality=95))
        (labels / f"{stem}.png").write_bytes(_encode(scene.labels, "PNG", compress_level=3))
        (instances / f"{stem}.png").write_bytes(_encode(scene.instances, "PNG", compress_level=3))
        report(2 * i + 1, 2 * n)
        other = draw("unlabelled", i, size, seed).thermal
        (pool / f"{stem}.jpg").write_bytes(_encode(other, "JPEG", quality=95))
        report(2 * i + 2, 2 * n)


def _encode(pixels: NDArray[np.uint8] | NDArray[np.uint16], form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()
