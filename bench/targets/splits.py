"""Splits of a target: dropping duplicates, cutting val from train, and whether the labels can be scored."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from bench.targets.card import VAL_SHARE, TargetSpec
from bench.targets.frames import Frame, FrameFacts
from pretrain_sources.image_files import IGNORE


def drop_duplicates(
    listed: Mapping[str, list[Frame]], facts: Mapping[Frame, FrameFacts]
) -> tuple[dict[str, list[Frame]], list[str]]:
    """Drop byte-identical duplicates; return (splits, notes).

    A duplicate of a test image is dropped from val and train, one of a val image from train. Test splits are never shortened.
    """
    notes = []
    splits = {split: list(dict.fromkeys(frames)) for split, frames in listed.items()}
    for split, frames in listed.items():
        if repeated := len(frames) - len(splits[split]):
            notes.append(f"{repeated} lines of the {split} list are duplicates and count once")
    seen = {facts[frame].image_sha256 for split in splits if split not in ("train", "val") for frame in splits[split]}
    for split in ("val", "train"):
        kept = []
        for frame in splits.get(split, []):
            if facts[frame].image_sha256 not in seen:
                kept.append(frame)
            seen.add(facts[frame].image_sha256)
        if dropped := len(splits.get(split, [])) - len(kept):
            notes.append(f"{dropped} {split} images are byte-identical to another image and were dropped from {split}")
        splits |= {split: kept} if split in splits else {}
    for split in (name for name in splits if name not in ("train", "val")):
        if doubles := len(splits[split]) - len({facts[frame].image_sha256 for frame in splits[split]}):
            notes.append(f"{doubles} {split} images are byte-identical to another {split} image; they stay")
    return splits, notes


def cut_val(train: list[Frame], share: float = VAL_SHARE) -> tuple[list[Frame], list[Frame]]:
    """Split train into (train, val): whole groups in the order of a hash of their names, until val has this share of the frames.

    Groups stay together, and the split depends on names alone. With a single group, val is empty.
    """
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in train:
        groups[frame.group].append(frame)
    order = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
    val: set[str] = set()
    for group in order[:-1]:
        if sum(len(groups[g]) for g in val) >= share * len(train):
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
