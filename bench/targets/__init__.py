"""Targets: the labelled data that models are finetuned and scored on."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from bench import BenchError
from bench.targets import hit_uav, soda
from bench.targets.frames import Frame, FrameFacts, LayoutError, Listing, examine_all
from pretrain_sources.config_file import suggestion
from pretrain_sources.hashing import fingerprint
from pretrain_sources.image_files import IGNORE, Pixels, counted
from pretrain_sources.pool import BLOCK, Pool, PoolError, look_through, read_pool

UNLABELLED = "unlabelled"  # a target's folder of images without labels: the pool
VAL_SHARE = 0.10  # of train, at least, becomes val where a target has none
SHOWN = 5  # files named for one kind of problem


@dataclass(frozen=True)
class TargetSpec:
    """The definition of a target, independent of its files."""

    name: str
    classes: tuple[str, ...]
    label_note: str  # shown beside every score
    group_note: str  # what a group of frames is
    folders: tuple[str, ...]  # possible names under the data folder
    read: Callable[[Path], Listing]  # raises LayoutError
    how_to_get: str
    pool_groups: Callable[[Path], Mapping[str, str]] | None = None  # of unlabelled images, where known


@dataclass(frozen=True)
class Target:
    """A target whose files have been read and checked. Splits: train, val, test."""

    spec: TargetSpec
    root: Path
    splits: Mapping[str, tuple[Frame, ...]]
    facts: Mapping[str, FrameFacts]  # by frame id
    content_hash: str
    notes: tuple[str, ...] = field(default=())  # dropped frames and oddities
    relabel: Pixels | None = None  # (256,) stored label -> new label, where the protocol maps classes
    further: tuple[str, ...] = ()  # names of further test splits, which `splits` holds too


TARGETS: Mapping[str, TargetSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            TargetSpec(
                "soda",
                soda.CLASSES,
                "people-made masks",
                "block of neighbouring file names; independence between blocks is assumed",
                ("soda", "SODA"),
                soda.read,
                "SODA has no licence and is not shipped; put your copy there",
            ),
            TargetSpec(
                "hit-uav",
                hit_uav.CLASSES,
                "derived masks: oriented boxes filled, so IoU measures agreement with boxes, not silhouettes",
                "flight date",
                ("hit-uav",),
                hit_uav.read,
                "HIT-UAV (CC BY 4.0), split again by flight date; its layout: bench/targets/README.md",
                hit_uav.pool_groups,
            ),
            TargetSpec(
                "scenes",
                soda.CLASSES,
                "rendered, synthetic scenes: no statement about real thermal images",
                "block of neighbouring file names; every frame is drawn on its own",
                ("scenes",),
                soda.read,
                "make it with `bench data make scenes`",
            ),
        )
    }
)


class DataError(BenchError):
    """A target cannot be used; the message is the full report."""


def find_root(spec: TargetSpec, data: Path) -> Path | None:
    """Return the target's folder under the data folder, or None."""
    return next((data / name for name in spec.folders if (data / name).is_dir()), None)


def open_target(
    name: str, data: Path, cache: Path | None = None, report: Callable[[int, int], None] = lambda done, total: None
) -> Target:
    """Open the target under `data`: read and check every file (unchanged files are taken from `cache`).

    Raises:
        DataError: the folder, a list, an image or a mask is missing or wrong; the report lists every problem.
    """
    if name not in TARGETS:
        raise BenchError(f"unknown target '{name}'{suggestion(name, TARGETS)}")
    spec = TARGETS[name]
    root = find_root(spec, data)
    if root is None and data.name in spec.folders and data.is_dir():
        raise DataError(f"{data} is the {name} folder itself; pass its parent: --data {data.parent}")
    if root is None:
        raise DataError(
            f"no folder {' or '.join(spec.folders)} under {data.absolute()}: "
            f"set the data folder with --data or BENCH_DATA ({spec.how_to_get})"
        )
    try:
        listed = spec.read(root)
    except LayoutError as error:
        raise DataError(f"{spec.name} in {root} cannot be used:\n{error}") from error
    facts = examine_all(
        (frame for frames in listed.splits.values() for frame in frames), len(spec.classes), cache, report
    )
    _refuse_problems(spec, root, facts)
    splits, notes = drop_duplicates(listed.splits, facts)
    if "val" not in splits:
        splits["train"], splits["val"] = cut_val(splits["train"])
        notes.append(f"no val split is published: {len(splits['val'])} frames of train became val, in whole blocks")
    _refuse_empty_splits(spec, root, splits, val_is_cut="val" not in listed.splits)
    names = Counter(frame.id for frames in splits.values() for frame in frames)
    if twice := [name for name, count in names.items() if count > 1]:
        raise DataError(
            f"{spec.name} in {root} cannot be used: {len(twice)} frames are in two splits (first: {twice[0]})"
        )
    by_id = {frame.id: facts[frame] for frames in splits.values() for frame in frames}
    if undefined := unscorable(spec, splits, by_id):
        raise DataError(f"{spec.name} in {root} cannot be used: {undefined}")
    notes = [*listed.notes, *notes, *_oddities(by_id)]
    return Target(
        spec, root, {s: tuple(f) for s, f in splits.items()}, by_id, _content_hash(spec, splits, by_id), tuple(notes)
    )


def open_pool(
    target: Target,
    folder: Path | None = None,
    cache: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Pool | None:
    """Open the unlabelled images in `folder`, or the target's own; None where it has none.

    Raises:
        DataError: the folder does not exist or holds no image.
    """
    root = folder or target.root / UNLABELLED
    if folder is None and not root.is_dir():
        return None
    own = root.absolute() == (target.root / UNLABELLED).absolute()
    try:
        groups = target.spec.pool_groups(target.root) if own and target.spec.pool_groups else None
        return read_pool(root, groups, cache, report)
    except PoolError as error:
        raise DataError(f"the pool cannot be used: {error}") from error


def pool_notes(target: Target) -> list[str]:
    """Describe a target's unlabelled images. An unusable pool is a note, not an error, because a pool is optional."""
    try:
        pool = open_pool(target)
    except DataError as error:
        return [str(error)]
    if pool is None:
        return []
    counts = f"{len(pool.images)} unlabelled images in {len({image.group for image in pool.images})} groups"
    repeated = [f"{pool.repeated} are byte-identical to another and count once"] if pool.repeated else []
    return [counts, *(f"unlabelled: {note}" for note in (*repeated, *pool.notes, *look_through(pool)))]


def drop_duplicates(
    listed: Mapping[str, list[Frame]], facts: Mapping[Frame, FrameFacts]
) -> tuple[dict[str, list[Frame]], list[str]]:
    """Drop byte-identical duplicates; return (splits, notes).

    A duplicate of a test image is dropped from val and train, one of a val image from train. Test is never shortened.
    """
    notes = []
    splits = {split: list(dict.fromkeys(frames)) for split, frames in listed.items()}
    for split, frames in listed.items():
        if repeated := len(frames) - len(splits[split]):
            notes.append(f"{repeated} lines of the {split} list are duplicates and count once")
    seen = {facts[frame].image_sha256 for frame in splits["test"]}
    for split in ("val", "train"):
        kept = []
        for frame in splits.get(split, []):
            if facts[frame].image_sha256 not in seen:
                kept.append(frame)
            seen.add(facts[frame].image_sha256)
        if dropped := len(splits.get(split, [])) - len(kept):
            notes.append(f"{dropped} {split} images are byte-identical to another image and were dropped from {split}")
        splits |= {split: kept} if split in splits else {}
    if doubles := len(splits["test"]) - len({facts[frame].image_sha256 for frame in splits["test"]}):
        notes.append(f"{doubles} test images are byte-identical to another test image; they stay")
    return splits, notes


def cut_val(train: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    """Split train into (train, val): whole groups in the order of a hash of their names, until val has a tenth of the frames.

    Groups stay together, and the split depends on names alone. With a single group, val is empty.
    """
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in train:
        groups[frame.group].append(frame)
    order = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
    val: set[str] = set()
    for group in order[:-1]:
        if sum(len(groups[g]) for g in val) >= VAL_SHARE * len(train):
            break
        val.add(group)
    return [f for f in train if f.group not in val], [f for f in train if f.group in val]


def unscorable(spec: TargetSpec, splits: Mapping[str, Sequence[Frame]], facts: Mapping[str, FrameFacts]) -> str | None:
    """Return why these labels cannot be scored, or None: a split has no labels, or train or test has a single class.

    Val may have a single class: the score of a schedule is defined there.
    """
    for split, frames in splits.items():
        rows = [facts[frame.id].pixels[:-1] for frame in frames]
        held = [name for k, name in enumerate(spec.classes) if any(row[k] for row in rows)]
        if not held or (len(held) == 1 and split != "val"):
            what = f"'{held[0]}' and ignore" if held else "ignore"
            return (
                f"the labels of {split} hold only {what}; are these masks of 0 and {IGNORE}? "
                f"{IGNORE} is ignored, labels must be 0..{len(spec.classes) - 1}"
            )
    return None


def _refuse_empty_splits(
    spec: TargetSpec, root: Path, splits: Mapping[str, Sequence[Frame]], *, val_is_cut: bool
) -> None:
    for split in ("train", "val", "test"):
        if splits[split]:
            continue
        why = f"its {split} split is empty"
        if split == "val" and val_is_cut:
            why = (
                f"train is too small to cut a val split from it: its {len(splits['train'])} frames are one block, and blocks "
                f"stay whole. A block has {BLOCK} consecutive numbers at the end of file names: 0 to {BLOCK - 1}, {BLOCK} to "
                f"{2 * BLOCK - 1} and so on. List frames of two blocks or more in train; from ten blocks on, val is about a tenth"
            )
        raise DataError(f"{spec.name} in {root} cannot be used: {why}")


def _refuse_problems(spec: TargetSpec, root: Path, facts: Mapping[Frame, FrameFacts]) -> None:
    kinds: dict[str, list[str]] = defaultdict(list)
    for fact in facts.values():
        if fact.problem is not None:
            kinds[fact.mend].append(fact.problem)
    if not kinds:
        return
    lines = [
        f"{spec.name} in {root} cannot be used: {sum(map(len, kinds.values()))} of {len(facts)} frames have a problem"
    ]
    for fix, problems in kinds.items():
        lines += [f"  {problem}" for problem in problems[:SHOWN]]
        lines += [f"  ... and {len(problems) - SHOWN} more of this kind"] if len(problems) > SHOWN else []
        lines += [f"  -> {fix}"]
    raise DataError("\n".join(lines))


def _oddities(facts: Mapping[str, FrameFacts]) -> list[str]:
    notes = []
    sizes = Counter(f"{fact.width}x{fact.height}" for fact in facts.values())
    if len(sizes) > 1:
        notes.append(
            "frames differ in size: " + ", ".join(f"{count} of {size}" for size, count in sizes.most_common(SHOWN))
        )
    if blank := [name for name, fact in facts.items() if sum(fact.pixels[:-1]) == 0]:
        notes.append(f"{len(blank)} masks hold only ignore (first: {blank[0]})")
    return [*notes, *counted((name, note) for name, fact in facts.items() for note in fact.notes)]


def _content_hash(spec: TargetSpec, splits: Mapping[str, list[Frame]], facts: Mapping[str, FrameFacts]) -> str:
    rows = {
        split: sorted(
            (frame.id, frame.group, facts[frame.id].image_sha256, facts[frame.id].label_sha256) for frame in frames
        )
        for split, frames in splits.items()
    }
    return fingerprint({"classes": spec.classes, "splits": rows})
