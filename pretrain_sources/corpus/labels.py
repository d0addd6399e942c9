"""From masks to a label map: encoding, ranking, painting."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pretrain_sources.hashing import derive_seed
from pretrain_sources.image_files import IGNORE, Pixels
from pretrain_sources.recipe import Recipe
from pretrain_sources.run_lengths import from_run_lengths, run_lengths
from pretrain_sources.teachers import Masks

# a teacher's masks, one per row; boxes are x0, y0, x1, y1 in pixels, inclusive
MASK_SCHEMA = pa.schema(
    [
        ("predicted_iou", pa.float32()),
        ("stability", pa.float32()),
        ("area_px", pa.int32()),
        ("box", pa.list_(pa.int32(), 4)),
        ("prompt", pa.list_(pa.float32())),
        ("rle", pa.list_(pa.uint32())),
    ]
)


@dataclass(frozen=True)
class EncodedMasks:
    """The encoded masks of one image: a table of MASK_SCHEMA, and the size (H, W) of the masks."""

    table: pa.Table
    size: tuple[int, int]


@dataclass(frozen=True)
class LabelMap:
    """A label map (H, W), and the rank of every mask in the teacher's order."""

    label: Pixels
    rank_key: NDArray[np.float64]  # (N,) higher is better; NaN for masks that are too small or too large
    rank: NDArray[np.int32]  # (N,) 1 is best; 0 for masks that are too small, too large or beyond top_k
    visible_px: NDArray[np.int32]  # (N,) pixels of the mask in the label map


def encode_masks(masks: Masks) -> EncodedMasks:
    """Encode masks as run lengths (COCO's order: column by column, beginning outside) with area and box."""
    n, height, width = masks.masks.shape
    table = pa.table(
        {
            "predicted_iou": np.asarray(masks.predicted_iou, dtype=np.float32),
            "stability": np.asarray(masks.stability, dtype=np.float32),
            "area_px": masks.masks.sum((1, 2), dtype=np.int32) if n else np.zeros(0, np.int32),
            "box": [_box(mask) for mask in masks.masks],
            "prompt": [list(prompt) for prompt in masks.prompts],
            "rle": [run_lengths(mask) for mask in masks.masks],
        },
        schema=MASK_SCHEMA,
    )
    return EncodedMasks(table, (height, width))


def make_label(masks: EncodedMasks, recipe: Recipe, image_sha256: str) -> LabelMap | None:
    """Make the label map of a recipe from these masks; None if no mask has a size that the recipe keeps.

    Masks are ranked by `rank_by`, ties by the teacher's order. `random` is seeded by the image's hash, so that an image gets the
    same ranks in any pool.
    """
    key = _rank_key(masks, recipe, image_sha256)
    order = np.argsort(-key, kind="stable")  # NaN last
    kept = order[: min(recipe.top_k, int(np.isfinite(key).sum()))]
    if not len(kept):
        return None
    rank = np.zeros(len(key), np.int32)
    rank[kept] = np.arange(1, len(kept) + 1)
    runs = masks.table["rle"]
    owner = np.zeros(masks.size, np.int32)  # rank of the mask that a pixel belongs to
    best_last = recipe.overlap == "better_wins"
    for i in reversed(kept) if best_last else kept:
        owner[from_run_lengths(runs[int(i)].values.to_numpy(), masks.size)] = rank[i]
    seen = np.bincount(owner.ravel(), minlength=len(kept) + 1)
    visible = np.where(rank > 0, seen[rank], 0).astype(np.int32)
    label = np.minimum(owner, 1) if recipe.binary else owner
    if recipe.uncovered == "ignore":
        label = np.where(owner == 0, IGNORE, label)
    return LabelMap(label.astype(np.uint8), key, rank, visible)


def _rank_key(masks: EncodedMasks, recipe: Recipe, image_sha256: str) -> NDArray[np.float64]:
    area = masks.table["area_px"].to_numpy().astype(np.float64)
    if recipe.rank_by == "random":
        key = np.random.default_rng(derive_seed("random rank", image_sha256)).random(len(area))
    elif recipe.rank_by in ("area", "area_ascending"):
        key = area if recipe.rank_by == "area" else -area
    else:
        key = masks.table[recipe.rank_by].to_numpy().astype(np.float64)
    most = recipe.max_area_frac * masks.size[0] * masks.size[1]
    fits = (area >= max(1, recipe.min_area_px)) & (area <= most)  # empty masks are always dropped
    return np.where(fits, key, np.nan)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])) if len(rows) else (0, 0, 0, 0)
