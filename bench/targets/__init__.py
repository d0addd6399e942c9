"""Targets: the labelled data that models are finetuned and scored on."""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bench import BenchError
from bench.shipped import shipped_files
from bench.targets.card import SPLITS, TargetCard, TargetSpec
from bench.targets.frames import PLAIN, Coding, Frame, FrameFacts, LayoutError, examine_all
from bench.targets.layout import pool_groups, read_listing
from bench.targets.splits import cut_val, drop_duplicates, unscorable
from pretrain_sources.config_file import read_yaml, suggestion
from pretrain_sources.hashing import fingerprint
from pretrain_sources.image_files import Pixels, counted
from pretrain_sources.pool import BLOCK, Pool, PoolError, look_through, read_pool

SHOWN = 5  # files named for one kind of problem


@dataclass(frozen=True)
class Target:
    """A target whose files have been read and checked. Splits: train, val, test, and further test splits.

    Attributes:
        card: as written; `spec` may have fewer classes, where the protocol maps them. facts: by frame id. notes: dropped frames and
            oddities. relabel: (256,) stored label -> new label, where the protocol maps classes.
    """

    card: TargetCard
    spec: TargetSpec
    root: Path
    splits: Mapping[str, tuple[Frame, ...]]
    facts: Mapping[str, FrameFacts]
    content_hash: str
    notes: tuple[str, ...] = ()
    relabel: Pixels | None = None
    further: tuple[str, ...] = ()  # names of further test splits, which `splits` holds too

    @property
    def coding(self) -> Coding:
        """How its files code grey values and labels."""
        return self.card.coding


class DataError(BenchError):
    """A target cannot be used; the message is the full report."""


@functools.cache
def shipped_targets() -> Mapping[str, TargetCard]:
    """Return the cards that ship, by name."""
    return MappingProxyType(
        {name: read_yaml(path, TargetCard) for name, path in shipped_files("targets/cards").items()}
    )


def find_target(name: str, beside: Path | None = None) -> TargetCard:
    """Return a shipped card by name, or the user's: a name that ends in .yaml is a file, relative to `beside`.

    The folder of a user's data becomes absolute.

    Raises:
        BenchError: unknown name, or the name of a shipped target for another card. FileError: the file is wrong.
    """
    known = shipped_targets()
    if not name.endswith((".yaml", ".yml")):
        if name in known:
            return known[name]
        if ((beside or Path()) / f"{name}.yaml").is_file():
            raise BenchError(f"unknown target '{name}': did you mean the file '{name}.yaml'?")
        raise BenchError(f"unknown target '{name}'{suggestion(name, known)}, or a card file of your own (.yaml)")
    path = (beside or Path()) / name
    card = read_yaml(path, TargetCard)
    if card.name in known and card.model_copy(update={"folder": None}) != known[card.name]:
        raise BenchError(f"{path}: '{card.name}' is the name of a shipped target; choose another name")
    folder = None if card.folder is None else str((path.parent / card.folder).absolute())
    return card.model_copy(update={"folder": folder})


def find_root(card: TargetCard, data: Path) -> Path | None:
    """Return the target's folder, or None."""
    places = [data / name for name in (card.name, *card.other_folders)] if card.folder is None else [Path(card.folder)]
    return next((place for place in places if place.is_dir()), None)


def open_target(
    which: str | TargetCard,
    data: Path,
    cache: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Target:
    """Open a target: read and check every file (unchanged files are taken from `cache`).

    which: a card, or a name as for `find_target`. data: folder with a folder of each target.

    Raises:
        DataError: the folder, a list, an image or a mask is missing or wrong; the report lists every problem.
    """
    card = find_target(which) if isinstance(which, str) else which
    spec, root = card.spec, _root(card, data)
    try:
        listed = read_listing(card, root)
    except LayoutError as error:
        raise DataError(f"{spec.name} in {root} cannot be used:\n{error}") from error
    frames = [frame for some in listed.splits.values() for frame in some]
    facts = examine_all(frames, len(spec.classes), cache, report, card.coding)
    _refuse_problems(spec, root, facts)
    splits, notes = drop_duplicates(listed.splits, facts)
    if "val" not in splits:
        splits["train"], splits["val"] = cut_val(splits["train"], card.val_share)
        notes.append(
            f"no val split is published: {len(splits['val'])} frames of train became val, in whole {_blocks(card)}"
        )
    splits = {split: splits[split] for split in (*SPLITS, *card.further)}
    _refuse_empty_splits(card, root, splits, val_is_cut="val" not in listed.splits)
    names = Counter(frame.id for frames in splits.values() for frame in frames)
    if twice := [name for name, count in names.items() if count > 1]:
        raise DataError(
            f"{spec.name} in {root} cannot be used: {len(twice)} frames are in two splits (first: {twice[0]})"
        )
    by_id = {frame.id: facts[frame] for frames in splits.values() for frame in frames}
    if undefined := unscorable(spec, splits, by_id):
        raise DataError(f"{spec.name} in {root} cannot be used: {undefined}")
    notes = [*listed.notes, *notes, *_oddities(by_id)]
    frames_of = {split: tuple(some) for split, some in splits.items()}
    content = _content_hash(card, splits, by_id)
    return Target(card, spec, root, frames_of, by_id, content, tuple(notes), further=card.further)


def _root(card: TargetCard, data: Path) -> Path:
    root, names = find_root(card, data), (card.name, *card.other_folders)
    if root is not None:
        return root
    if card.folder is not None:
        raise DataError(
            f"no folder {card.folder}: correct `folder` in the card of {card.name}, which is relative to it"
        )
    if data.name in names and data.is_dir():
        raise DataError(f"{data} is the {card.name} folder itself; pass its parent: --data {data.parent}")
    how = f" ({card.how_to_get})" if card.how_to_get else ""
    raise DataError(
        f"no folder {' or '.join(names)} under {data.absolute()}: set the data folder with --data or BENCH_DATA{how}"
    )


def _blocks(card: TargetCard) -> str:
    return "groups" if card.groups else "blocks"


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
    own = target.root / target.card.unlabelled
    root = folder or own
    if folder is None and not root.is_dir():
        return None
    try:
        groups = pool_groups(target.card, target.root) if root.absolute() == own.absolute() else None
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


def _refuse_empty_splits(
    card: TargetCard, root: Path, splits: Mapping[str, Sequence[Frame]], *, val_is_cut: bool
) -> None:
    for split in splits:
        if splits[split]:
            continue
        why = f"its {split} split is empty"
        if split == "val" and val_is_cut and card.groups is not None:
            why = (
                f"train is too small to cut a val split from it: its {len(splits['train'])} frames are one group "
                f"({card.groups.note}), and groups stay whole; add frames of another group, or name a val split in the card"
            )
        elif split == "val" and val_is_cut:
            why = (
                f"train is too small to cut a val split from it: its {len(splits['train'])} frames are one block, and blocks "
                f"stay whole. A block has {BLOCK} consecutive numbers at the end of file names: 0 to {BLOCK - 1}, {BLOCK} to "
                f"{2 * BLOCK - 1} and so on. List frames of two blocks or more in train; from ten blocks on, val is about a tenth"
            )
        raise DataError(f"{card.name} in {root} cannot be used: {why}")


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


def _content_hash(card: TargetCard, splits: Mapping[str, list[Frame]], facts: Mapping[str, FrameFacts]) -> str:
    rows = {
        split: sorted(
            (frame.id, frame.group, facts[frame.id].image_sha256, facts[frame.id].label_sha256) for frame in frames
        )
        for split, frames in splits.items()
    }
    coding = {} if card.coding == PLAIN else {"coding": card.coding.digest}
    return fingerprint({"classes": card.classes, "splits": rows} | coding)
