"""SODA (Li et al., "Segmenting Objects in Day and Night", arXiv 1907.10303), real part, in the layout as published.

[soda|SODA]/InfraredSemanticLabel/JPEGImages/<stem>.jpg
                                  SegmentationClassOne/<stem>.png and/or SegmentationClassPNG/<stem>.png
                                  train_infrared.txt, test_infrared.txt
"""

import re
from pathlib import Path

import numpy as np

from bench.targets.frames import Frame, LayoutError, Listing, decode_label

CLASSES = (
    *("background", "person", "building", "tree", "road", "pole", "grass", "door", "table", "chair", "car"),
    *("bicycle", "lamp", "monitor", "traffic cone", "trash can", "animal", "fence", "sky", "river", "sidewalk"),
)
MASK_FOLDERS = ("SegmentationClassOne", "SegmentationClassPNG")
LISTS = {"train": "train_infrared.txt", "test": "test_infrared.txt"}
BLOCK = 20  # neighbouring numbers that are kept together; the sequences are not published


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
    listed = {split: [_frame(base, masks[0], stem) for stem in found] for split, found in stems.items()}
    notes = (_compare(listed, *masks),) if len(masks) == 2 else ()
    return Listing(listed, notes)


def read_list(path: Path) -> list[str]:
    """The stems of a list file: one a line, with or without folder and extension, blank lines and CRLF allowed."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [re.sub(r"\.(jpe?g|png)$", "", re.split(r"[/\\]", line)[-1], flags=re.IGNORECASE) for line in lines if line]


def block_of(stem: str) -> str:
    """The numbering block that a frame belongs to: its name without the last number, and that number div 20."""
    number = re.search(r"(\d+)(?!.*\d)", re.sub(r"\s*\(\d+\)|~\d*$", "", stem))  # "(1)" and "~" mark copies
    return f"{stem[: number.start()]}#{int(number.group(1)) // BLOCK}" if number else stem


def _frame(base: Path, masks: Path, stem: str) -> Frame:
    return Frame(stem, base / "JPEGImages" / f"{stem}.jpg", masks / f"{stem}.png", block_of(stem))


def _compare(listed: dict[str, list[Frame]], one: Path, other: Path) -> str:
    """The note that both mask folders agree: whether they do was never published, so it is looked up."""
    differing = []
    for frame in dict.fromkeys(frame for frames in listed.values() for frame in frames):
        twin = other / frame.label.name
        if not twin.is_file():
            differing.append(frame.label.name)
            continue
        a, b = frame.label.read_bytes() if frame.label.is_file() else b"", twin.read_bytes()
        if a != b and not _same_labels(a, b):
            differing.append(frame.label.name)
    if differing:
        raise LayoutError(
            f"  {one.name} and {other.name} differ in {len(differing)} masks, the first {differing[0]}: "
            "move the one aside that you do not want to be used"
        )
    return f"both mask folders are there and hold the same labels; {one.name} is read"


def _same_labels(a: bytes, b: bytes) -> bool:
    try:
        return np.array_equal(decode_label(a), decode_label(b))
    except (OSError, SyntaxError, ValueError):
        return False
