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
    """Read the lists of train and test; frames keep the order of the lists. No image is opened.

    Raises:
        LayoutError: a folder or list is missing or empty, or two files have the same name.
    """
    base = root / "InfraredSemanticLabel" if (root / "InfraredSemanticLabel").is_dir() else root
    masks = [base / name for name in MASK_FOLDERS if (base / name).is_dir()]
    problems = [] if (base / "JPEGImages").is_dir() else [f"  no folder {base / 'JPEGImages'}"]
    problems += [] if masks else [f"  no mask folder: {' or '.join(MASK_FOLDERS)} must be in {base}"]
    stems: dict[str, list[str]] = {}
    for split, name in LISTS.items():
        try:
            stems[split] = read_list(base / name)
            problems += [] if stems[split] else [f"  {base / name} is empty: it must hold one file name a line"]
        except OSError as error:
            problems.append(
                f"  {base / name} cannot be read: {error.strerror}; it lists the frames of {split}, one file name a line: "
                "copy it from SODA, or write it"
            )
        except UnicodeDecodeError as error:
            problems.append(f"  {base / name} cannot be read: {error}; save it as plain UTF-8 text")
    problems += [f"  {base / LISTS[split]}: {name}" for split, listed in stems.items() for name in two_forms(listed)]
    if problems:
        raise LayoutError("\n".join(problems))
    # it was never published whether the two mask folders are identical, so both are read
    images, *drawn = (Folder.of(folder) for folder in (base / "JPEGImages", *masks))
    splits = {split: [_frame(stem, images, drawn) for stem in listed] for split, listed in stems.items()}
    wanted = [stem for listed in stems.values() for stem in listed]
    notes = [f"both mask folders exist and hold the same labels; {masks[0].name} is read"] if len(masks) == 2 else []
    for folder, suffix in ((images, ".jpg"), *((each, ".png") for each in drawn)):
        faults, more = folder.differences((f"{stem}{suffix}" for stem in wanted), "are not listed")
        problems, notes = [*problems, *(f"  {fault}" for fault in faults)], [*notes, *more]
    if problems:
        raise LayoutError("\n".join(problems))
    return Listing(splits, tuple(notes))


def read_list(path: Path) -> list[str]:
    """Read the stems of a list file: one a line, with or without folder and extension; blank lines and CRLF are allowed."""
    lines = (line.strip() for line in read_regular(path).decode("utf-8-sig").splitlines())
    return [re.sub(r"\.(jpe?g|png)$", "", re.split(r"[/\\]", line)[-1], flags=re.IGNORECASE) for line in lines if line]


def _frame(stem: str, images: Folder, masks: Sequence[Folder]) -> Frame:
    label, twin = masks[0].find(f"{stem}.png"), masks[1].find(f"{stem}.png") if len(masks) == 2 else None
    return Frame(stem, images.find(f"{stem}.jpg"), label, block_of(stem), twin)
