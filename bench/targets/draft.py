"""A first draft of a target's card, from a look at its folder: `bench data init`."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import Match, SequenceMatcher
from pathlib import Path

import numpy as np
from PIL import Image

from bench import BenchError
from bench.targets.layout import read_list
from pretrain_sources.image_files import IGNORE
from pretrain_sources.lists import SUFFIXES, ListError, read_rows

MOST_FILES = 200_000  # looked at
MOST_COMPARED = 2_000  # names
SAMPLED = 24  # files opened of each folder
MOST_LABELS = 64  # distinct values of a label map; an image has more
SPLITS = {  # names that people give to splits
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
LABEL_NAMES = re.compile(r"label|mask|seg|annot|gt|ground", re.IGNORECASE)


@dataclass
class _Kind:
    """The image files whose paths differ only in their names and splits."""

    pattern: str  # path below the folder with <name> and perhaps <split>
    files: list[Path] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)  # split -> folder
    values: Counter[int] = field(default_factory=Counter)  # of a label map: value -> pixels
    colours: Counter[str] = field(default_factory=Counter)
    deep: tuple[float, float] | None = None  # least and largest value of images of more than 8 bits
    channels: int = 1


def draft(folder: Path) -> str:
    """Look at a folder and return the text of a card to be completed; what could not be found says TODO.

    Raises:
        BenchError: it is no folder, or holds no images with label maps.
    """
    if not folder.is_dir():
        raise BenchError(f"no folder {folder}")
    kinds = _kinds(folder)
    labels = max((kind for kind in kinds if kind.values or kind.colours), key=_looks_like_labels, default=None)
    images = max((kind for kind in kinds if kind is not labels), key=lambda kind: len(kind.files), default=None)
    if labels is None or images is None:
        found = ", ".join(f"{len(kind.files)} of {kind.pattern}" for kind in kinds) or "no image files"
        raise BenchError(
            f"{folder} needs images in one folder and label maps in another, PNGs with a value or colour for each class; "
            f"found: {found}"
        )
    images.pattern, labels.pattern = _with_affixes(images, labels)
    lines = [
        f"# A first draft by `bench data init`. Complete what says TODO, then: bench data check {folder / 'target.yaml'}",
        f"name: {_name(folder)}",
        f"classes: [{', '.join(_classes(labels))}]  # TODO: their names, in the order of the labels; the first is the background",
        "label_note: TODO, who drew the labels and how",
        "folder: .",
        f"images: {images.pattern}",
        f"labels: {labels.pattern}",
        *_split_lines(folder, images),
        *_value_lines(labels),
        *_depth_lines(images),
        "# groups: {pattern: '^(\\w+)_', note: recording}  # frames that are alike; without it, blocks of 20 numbers in file names",
    ]
    return "\n".join(lines) + "\n"


def _name(folder: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._") or "mine"


def _kinds(folder: Path) -> list[_Kind]:
    """Group the image files below a folder by the pattern of their paths."""
    kinds: dict[str, _Kind] = {}
    for count, path in enumerate(_files(folder)):
        if count == MOST_FILES:
            break
        *above, _ = parts = path.relative_to(folder).parts
        shown, split = list(above), ""
        for i, part in enumerate(above):
            if part.lower() in SPLITS:
                shown[i], split = "<split>", part
        pattern = "/".join((*shown, f"<name>{Path(parts[-1]).suffix}"))
        kind = kinds.setdefault(pattern, _Kind(pattern))
        kind.files.append(path)
        if split:
            kind.splits.setdefault(SPLITS[split.lower()], split)
    for kind in kinds.values():
        _look(kind)
    return list(kinds.values())


def _files(folder: Path) -> Iterable[Path]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(root, name)


def _look(kind: _Kind) -> None:
    """Open some of the files: few values or colours make label maps, more than 8 bits make deep images."""
    ends = []
    for path in kind.files[:: max(1, len(kind.files) // SAMPLED)][:SAMPLED]:
        try:
            pixels = np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path))
        except (OSError, ValueError, SyntaxError):
            continue
        kind.channels = max(kind.channels, pixels.shape[2] if pixels.ndim == 3 else 1)
        if pixels.dtype != np.uint8:
            ends.append((float(pixels.min()), float(pixels.max())))
        if pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype == np.uint8:
            found, counts = np.unique(pixels[..., :3].reshape(-1, 3), axis=0, return_counts=True)
            kind.colours.update({"#{:02x}{:02x}{:02x}".format(*c): int(n) for c, n in zip(found, counts, strict=True)})
        elif pixels.ndim == 2 and np.issubdtype(pixels.dtype, np.integer):
            found, counts = np.unique(pixels, return_counts=True)
            kind.values.update({int(v): int(n) for v, n in zip(found, counts, strict=True)})
    kind.deep = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None
    lossy = kind.pattern.lower().endswith((".jpg", ".jpeg"))
    if lossy or len(kind.values) > MOST_LABELS:
        kind.values.clear()
    if lossy or kind.values or len(kind.colours) > MOST_LABELS:
        kind.colours.clear()


def _looks_like_labels(kind: _Kind) -> tuple[bool, int]:
    return bool(LABEL_NAMES.search(kind.pattern)), len(kind.files)


def _with_affixes(images: _Kind, labels: _Kind) -> tuple[str, str]:
    """Return both patterns with what surrounds the common name: img_<name>.png and <name>_mask.png, for example."""
    stems = {path.stem for path in images.files}
    label = labels.files[0].stem

    def shared(stem: str) -> Match:
        return SequenceMatcher(None, stem, label, autojunk=False).find_longest_match()

    stem = max(sorted(stems)[:MOST_COMPARED], key=lambda stem: shared(stem).size)
    a, b, size = shared(stem)
    affixes = (stem[:a], stem[a + size :]), (label[:b], label[b + size :])
    (before, after), (first, last) = affixes
    names = [path.stem for path in labels.files]
    fits = all(
        name.startswith(first)
        and name.endswith(last)
        and f"{before}{name[len(first) : len(name) - len(last)]}{after}" in stems
        for name in names
    )
    if not fits:
        return images.pattern, labels.pattern
    filled = (f"{start}<name>{end}" for start, end in affixes)
    return tuple(kind.pattern.replace("<name>", name) for kind, name in zip((images, labels), filled, strict=True))  # type: ignore[return-value]


def _codes(labels: _Kind) -> list[str]:
    """Return the values or colours of classes, the most frequent first among colours."""
    if labels.colours:
        return [colour for colour, _ in labels.colours.most_common()]
    return [str(value) for value in sorted(labels.values) if value != IGNORE]


def _classes(labels: _Kind) -> list[str]:
    codes = _codes(labels)
    highest = max((int(code) for code in codes), default=0) if labels.values else len(codes) - 1
    count = highest + 1 if labels.values and highest < MOST_LABELS else len(codes)
    return ["background", *(f"class-{k}" for k in range(1, max(2, count)))]


def _value_lines(labels: _Kind) -> list[str]:
    classes, codes = _classes(labels), _codes(labels)
    if labels.colours:
        pairs = ", ".join(f"{name}: '{code}'" for name, code in zip(classes, codes, strict=False))
        return [f"colours: {{{pairs}}}  # TODO: which is which", "ignore: []  # colours of pixels that do not count"]
    if len(classes) > len(codes) and len(codes) > 1:
        return [f"# the masks hold {', '.join(codes)}; other labels may be rare"]
    if codes != [str(k) for k in range(len(codes))]:
        pairs = ", ".join(f"{name}: {code}" for name, code in zip(classes, codes, strict=False))
        return [f"values: {{{pairs}}}  # value in the masks of each class"]
    return []


def _depth_lines(images: _Kind) -> list[str]:
    lines = [f"channel: 0  # TODO: which of {images.channels} is thermal; leave it out if they are equal"] * (
        images.channels > 1
    )
    if images.deep is not None:
        low, high = images.deep
        lines.append(
            f"range: [{low:g}, {high:g}]  # TODO: values that become black and white; or percentiles: [0.5, 99.5]"
        )
    return lines


def _split_lines(folder: Path, images: _Kind) -> list[str]:
    """Say what lists the frames: folders, an index, or list files."""
    if "<split>" in images.pattern:
        return [f"folders: {{{_pairs(images.splits)}}}{_missing(images.splits)}"]
    for path in sorted(folder.glob("*.csv")):
        if (columns := _index_columns(path)) is not None:
            return [f"index: {{file: {path.name}, name: {columns[0]}, split: {columns[1]}}}"]
    lists = _lists(folder)
    return [f"lists: {{{_pairs(lists)}}}{_missing(lists)}"]


def _pairs(splits: Mapping[str, str]) -> str:
    return ", ".join(f"{split}: {splits[split]}" for split in ("train", "val", "test") if split in splits)


def _missing(splits: Mapping[str, str]) -> str:
    gone = [split for split in ("train", "test") if split not in splits]
    return f"  # TODO: {' and '.join(gone)}" if gone else ""


def _index_columns(path: Path) -> tuple[str, str] | None:
    try:
        with path.open(encoding="utf-8-sig") as file:
            columns = [name.strip() for name in file.readline().split(",")]
        name = next((c for c in columns if c.lower() in ("file", "filename", "image", "name", "path")), None)
        split = next((c for c in columns if c.lower() in ("split", "set", "subset")), None)
        return (name, split) if name and split and read_rows(path, (name, split)) else None
    except (OSError, ListError, ValueError):
        return None


def _lists(folder: Path) -> dict[str, str]:
    """Return split -> list file, by the words of its name."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("*.txt"))[:1000]:
        words: Sequence[str] = re.split(r"[^a-z]+", path.stem.lower())
        for word in words:
            if word in SPLITS and _is_list(path):
                found[SPLITS[word]].append(path.relative_to(folder).as_posix())
    return {split: min(names, key=len) for split, names in found.items()}


def _is_list(path: Path) -> bool:
    try:
        return bool(read_list(path))
    except (OSError, ValueError):
        return False
