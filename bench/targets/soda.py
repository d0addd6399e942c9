"""SODA (Li et al., "Segmenting Objects in Day and Night", arXiv 1907.10303), real part, in the layout as published.

[soda|SODA]/InfraredSemanticLabel/JPEGImages/<stem>.jpg
                                  SegmentationClassOne/<stem>.png and/or SegmentationClassPNG/<stem>.png
                                  train_infrared.txt, test_infrared.txt
"""

import re
from pathlib import Path

from bench.targets.frames import Frame, LayoutError, Listing
from pretrain_sources.pool import block_of
from safe_files import read_regular

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
    if problems:
        raise LayoutError("\n".join(problems))
    twin = (
        masks[1] if len(masks) == 2 else None
    )  # whether the two are identical was never published, so it is looked up
    listed = {split: [_frame(base, stem, masks[0], twin) for stem in found] for split, found in stems.items()}
    same = f"both mask folders are there and hold the same labels; {masks[0].name} is read"
    return Listing(listed, (same,) if twin else ())


def read_list(path: Path) -> list[str]:
    """The stems of a list file: one a line, with or without folder and extension, blank lines and CRLF allowed."""
    lines = (line.strip() for line in read_regular(path).decode("utf-8-sig").splitlines())
    return [re.sub(r"\.(jpe?g|png)$", "", re.split(r"[/\\]", line)[-1], flags=re.IGNORECASE) for line in lines if line]


def _frame(base: Path, stem: str, masks: Path, twin: Path | None) -> Frame:
    name = f"{stem}.png"
    return Frame(stem, base / "JPEGImages" / f"{stem}.jpg", masks / name, block_of(stem), twin / name if twin else None)
