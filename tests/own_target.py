"""Data sets of a user's own, for tests: deep TIFFs in a layout of its own, and frames in MFNet's layout."""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

CARD = {
    "name": "yard",
    "classes": ["ground", "person", "cart"],
    "label_note": "people-made masks, of a test",
    "folder": ".",
    "images": "ir/<split>/cam1_<name>.tif",
    "labels": "gt/<split>/<name>_mask.png",
    "folders": {"train": "training", "test": "testing", "far-away": "far"},
    "values": {"ground": 0, "person": [10, 11], "cart": 20},
    "ignore": [99],
    "range": [20000, 40000],
    "groups": {"pattern": r"^(s\d)_", "note": "sequence"},
}


def deep_frame(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a 16-bit image and a mask with the values of `CARD`."""
    mask = np.zeros(size, np.uint8)
    for value in (10, 20, 11, 99):
        top, left = (int(rng.integers(0, side - 12)) for side in size)
        mask[top : top + 12, left : left + 10] = value
    warm = np.select([mask == 10, mask == 11, mask == 20], [35000, 34000, 28000], 22000)
    return (warm + rng.integers(0, 1500, size)).astype(np.uint16), mask


def write_own(folder: Path, size: tuple[int, int] = (48, 64), **changes: object) -> Path:
    """Write 3-class data of 16-bit TIFFs with a card; return the card. changes: of the card; None leaves a key out."""
    rng = np.random.default_rng(0)
    sequences = {"training": ("s0", "s1", "s2"), "testing": ("s3", "s4"), "far": ("s5",)}
    for split, names in sequences.items():
        for kind in ("ir", "gt"):
            (folder / kind / split).mkdir(parents=True)
        for name in (f"{sequence}_{i:03}" for sequence in names for i in range(4)):
            image, mask = deep_frame(rng, size)
            Image.fromarray(image).save(folder / "ir" / split / f"cam1_{name}.tif")
            Image.fromarray(mask).save(folder / "gt" / split / f"{name}_mask.png")
    return write_card(folder, **changes)


def write_card(folder: Path, **changes: object) -> Path:
    path = folder / "yard.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (CARD | changes).items() if v is not None}, sort_keys=False))
    return path


def write_mfnet(data: Path, size: tuple[int, int] = (48, 64)) -> None:
    """Write 20 frames in MFNet's layout: RGBA PNGs whose fourth channel is thermal."""
    rng = np.random.default_rng(0)
    root = data / "mfnet"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    names = [f"{i:05}{'DN'[i % 2]}" for i in range(20)]
    for name in names:
        label = np.zeros(size, np.uint8)
        label[10:20, 10:30], label[25:40, 5:15] = 1, 2
        image = rng.integers(0, 255, (*size, 4), dtype=np.uint8)
        image[..., 3] = np.where(label > 0, 200, 60) + rng.integers(0, 20, size)
        Image.fromarray(image, "RGBA").save(root / "images" / f"{name}.png")
        Image.fromarray(label).save(root / "labels" / f"{name}.png")
    for split, part in (("train", names[:12]), ("val", names[12:16]), ("test", names[16:])):
        (root / f"{split}.txt").write_text("\n".join(part) + "\n")
