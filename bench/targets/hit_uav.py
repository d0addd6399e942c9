"""hit-uav: real thermal frames from a drone (HIT-UAV, Suo et al. 2023, CC BY 4.0), re-cut by flight date.

hit-uav/images/{train,val,test}/<stem>.jpg    labels/{train,val,test}/<stem>.png    index.csv (file, split, date, ...)
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from bench.targets.frames import Frame, LayoutError, Listing
from pretrain_sources.pool import read_groups
from safe_files import open_regular

CLASSES = ("background", "person", "car", "bicycle", "other vehicle")
SPLITS = ("train", "val", "test")
UNLABELLED = "unlabelled"  # the pool that pseudo-labels are made from


def read(root: Path) -> Listing:
    """The frames of index.csv, group = flight date.

    Raises:
        LayoutError: index.csv is missing, is not as expected, or lists nothing for a split.
    """
    index = root / "index.csv"
    try:
        with io.TextIOWrapper(open_regular(index), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if short := [i for i, row in enumerate(rows, start=2) if None in row.values()]:
            raise LayoutError(f"  {index}, line {short[0]}: too few fields")
        if odd := [
            (i, row["split"]) for i, row in enumerate(rows, start=2) if row["split"] not in (*SPLITS, UNLABELLED)
        ]:
            raise LayoutError(f"  {index}, line {odd[0][0]}: unknown split '{odd[0][1]}'")
        listed = {
            split: [_frame(root, row["file"], split, row["date"]) for row in rows if row["split"] == split]
            for split in SPLITS
        }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LayoutError(f"  cannot read {index}: {error}") from error
    except KeyError as error:
        raise LayoutError(f"  {index} has no column {error}") from error
    if empty := [split for split, frames in listed.items() if not frames]:
        raise LayoutError(f"  {index} lists no frame for {', '.join(empty)}")
    return Listing(listed)


def pool_groups(root: Path) -> Mapping[str, str]:
    """Flight date of each unlabelled frame."""
    return read_groups(root / "index.csv", "date")


def _frame(root: Path, name: str, split: str, date: str) -> Frame:
    stem = Path(name).stem
    return Frame(stem, root / "images" / split / f"{stem}.jpg", root / "labels" / split / f"{stem}.png", date)
