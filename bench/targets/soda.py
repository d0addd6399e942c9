"""SODA (Li et al., "Segmenting Objects in Day and Night", arXiv 1907.10303), real part, in the layout as published.

[soda|SODA]/InfraredSemanticLabel/JPEGImages/<stem>.jpg
                                  SegmentationClassOne/<stem>.png and/or SegmentationClassPNG/<stem>.png
                                  train_infrared.txt, test_infrared.txt
"""

import re
from collections.abc import Sequence
from pathlib import Path

from bench.targets.frames import Frame, LayoutError, Listing
from pretrain_sources.lists import Folder, two_forms
from pretrain_sources.pool import block_of
from safe_io.files import read_regular

CLASSES = (
    *("background", "person", "building", "tree", "road", "pole", "grass", "door", "table", "chair", "car"),
    *("bicycle", "lamp", "monitor", "traffic cone", "trash can", "animal", "fence", "sky", "river", "sidewalk"),
)
MASK_FOLDERS = ("SegmentationClassOne", "SegmentationClassPNG")
LISTS = {"train": "train_infrared.txt", "test": "test_infrared.txt"}


def read(root: Path) -> Listing:
    """The listed frames of train and test, in the order of the lists. No image is opened, unless there are two mask folders.

    Raises:
        LayoutError: a folder or list is missing, a list is empty, or the two mask folders disagree.
    """
    base = root / "InfraredSemanticLabel" if (root / "InfraredSemanticLabel").is_dir() else root
    masks = [base / name for name in MASK_FOLDERS if (base / name).is_dir()]
    problems = [] if (base / "JPEGImages").is_dir() else [f"  no folder {base / 'JPEGImages'}"]
    problems += [] if masks else [f"  no mask folder: {' or '.join(MASK_FOLDERS)} must be in {base}"]
    stems: dict[str, list[str]] = {}
    for split, name in LISTS.items():
        try:
            stems[split] = read_list(base / name)
            problems += [] if stems[split] else [f"  {base / name} lists nothing: it must hold one file name a line"]
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"  {base / name} cannot be read: {error}")
    problems += [f"  {base / LISTS[split]}: {name}" for split, found in stems.items() for name in two_forms(found)]
    if problems:
        raise LayoutError("\n".join(problems))
    # whether the two mask folders are identical was never published, so it is looked up
    images, *drawn = (Folder.of(folder) for folder in (base / "JPEGImages", *masks))
    listed = {split: [_frame(stem, images, drawn) for stem in found] for split, found in stems.items()}
    wanted = [stem for found in stems.values() for stem in found]
    notes = (
        [f"both mask folders are there and hold the same labels; {masks[0].name} is read"] if len(masks) == 2 else []
    )
    for folder, suffix in ((images, ".jpg"), *((each, ".png") for each in drawn)):
        faults, more = folder.differences((f"{stem}{suffix}" for stem in wanted), "stand in no list")
        problems, notes = [*problems, *(f"  {fault}" for fault in faults)], [*notes, *more]
    if problems:
        raise LayoutError("\n".join(problems))
    return Listing(listed, tuple(notes))


def read_list(path: Path) -> list[str]:
    """The stems of a list file: one a line, with or without folder and extension, blank lines and CRLF allowed."""
    lines = (line.strip() for line in read_regular(path).decode("utf-8-sig").splitlines())
    return [re.sub(r"\.(jpe?g|png)$", "", re.split(r"[/\\]", line)[-1], flags=re.IGNORECASE) for line in lines if line]


def _frame(stem: str, images: Folder, masks: Sequence[Folder]) -> Frame:
    label, twin = masks[0].find(f"{stem}.png"), masks[1].find(f"{stem}.png") if len(masks) == 2 else None
    return Frame(stem, images.find(f"{stem}.jpg"), label, block_of(stem), twin)
