"""hit-uav: real thermal frames from a drone (HIT-UAV, Suo et al. 2023, CC BY 4.0), re-cut by flight date.

hit-uav/images/{train,val,test}/<stem>.jpg    labels/{train,val,test}/<stem>.png    index.csv (file, split, date, ...)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.targets.frames import Frame, LayoutError, Listing
from pretrain_sources.lists import Folder, ListError, plain, read_rows, stem_of, two_forms
from pretrain_sources.pool import read_groups

CLASSES = ("background", "person", "car", "bicycle", "other vehicle")
SPLITS = ("train", "val", "test")
UNLABELLED = "unlabelled"  # the pool that pseudo-labels are made from


def read(root: Path) -> Listing:
    """Read the frames listed in index.csv; group = flight date.

    Raises:
        LayoutError: index.csv is missing, malformed or lists no frame for a split, or two files have the same name.
    """
    index = root / "index.csv"
    try:
        rows = read_rows(index, ("file", "split", "date"))
    except ListError as error:
        raise LayoutError(
            f"  {error}; {index.name} lists every frame in the columns file, split and date: see bench/targets/README.md"
        ) from error
    _check(index, rows)
    listed, problems, notes = dict[str, list[Frame]](), list[str](), list[str]()
    for split in SPLITS:
        images, labels = (Folder.of(root / part / split) for part in ("images", "labels"))
        frames = [(stem_of(name), date) for _, (name, part, date) in rows if part == split]
        problems += [f"  {index}, {split}: {fault}" for fault in two_forms(stem for stem, _ in frames)]
        listed[split] = [
            Frame(stem, images.find(f"{stem}.jpg"), labels.find(f"{stem}.png"), date) for stem, date in frames
        ]
        for folder, suffix in ((images, ".jpg"), (labels, ".png")):
            faults, more = folder.differences((f"{stem}{suffix}" for stem, _ in frames), f"are not listed in {split}")
            problems, notes = [*problems, *(f"  {fault}" for fault in faults)], [*notes, *more]
    if problems:
        raise LayoutError("\n".join(problems))
    there = {plain(name) for names in Folder.of(root / UNLABELLED).names.values() for name in names}
    gone = [name for _, (name, split, _) in rows if split == UNLABELLED and plain(stem_of(name)) not in there]
    if there and gone:
        notes.append(f"{len(gone)} unlabelled images of {index.name} are not in {UNLABELLED}/ (first: {gone[0]})")
    return Listing(listed, tuple(notes))


def _check(index: Path, rows: Sequence[tuple[int, tuple[str, ...]]]) -> None:
    dates: dict[tuple[str, str], str] = {}
    for line, (name, split, date) in rows:
        if split not in (*SPLITS, UNLABELLED):
            raise LayoutError(f"  {index}, line {line}: unknown split '{split}'")
        if dates.setdefault((plain(name), split), date) != date:
            raise LayoutError(f"  {index}, line {line}: {name} is listed twice, with different dates")
    if empty := [split for split in SPLITS if split not in {split for _, split in dates}]:
        raise LayoutError(f"  {index} lists no frame for {', '.join(empty)}")


def pool_groups(root: Path) -> Mapping[str, str]:
    """Return the flight date of each unlabelled frame."""
    return read_groups(root / "index.csv", "date")
