"""The one reader of targets: from a card and a folder to the frames of each split. No image is opened."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.targets.card import TargetCard
from bench.targets.frames import Frame, LayoutError, Listing
from pretrain_sources.lists import SUFFIXES, Folder, ListError, composed, plain, read_rows, stem_of, two_forms
from pretrain_sources.pool import block_of, read_groups
from results.groups import nested
from safe_io.files import read_regular

NAMED = re.compile(r"<(?:name|path)>")


@dataclass(frozen=True)
class Place:
    """Where the files of a split lie: a folder, and the pattern of the files in it."""

    folder: Path
    pattern: str  # with <name> or <path>, below the folder

    @classmethod
    def of(cls, base: Path, pattern: str, split: str) -> "Place":
        """Fill in <split>."""
        parts = pattern.replace("<split>", split).split("/")
        first = next(i for i, part in enumerate(parts) if NAMED.search(part))
        return cls(base.joinpath(*parts[:first]), "/".join(parts[first:]))

    @cached_property
    def files(self) -> Folder:
        """The files that are there; with <path> also those in folders below."""
        if "<path>" not in self.pattern:
            return Folder.of(self.folder)
        names = [
            Path(root, name).relative_to(self.folder).as_posix()
            for root, folders, files in os.walk(self.folder)
            if not folders.sort()  # in a fixed order
            for name in sorted(files)
            if not name.startswith(".")
        ]
        return Folder.holding(self.folder, names)

    @cached_property
    def _by_stem(self) -> Mapping[str, list[str]]:
        stems: dict[str, list[str]] = defaultdict(list)
        for names in self.files.names.values():
            for name in names:
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES:
                    stems[composed(stem)].append(name)
        return stems

    def name_of(self, stem: str) -> str:
        """Return the file name of a frame; `.*` becomes the suffix of the file that is there, if there is one."""
        name = NAMED.sub(lambda _: stem, self.pattern)
        if not name.endswith(".*"):
            return name
        found = self._by_stem.get(composed(name[:-2]), [])
        return found[0] if found else f"{name[:-2]}.png"

    def stems(self) -> Iterator[str]:
        """Yield the frames that lie here, ordered by name."""
        before, after = NAMED.split(self.pattern)
        after, _, suffix = after.rpartition(".")
        suffixes = SUFFIXES if suffix == "*" else (f".{suffix.lower()}",)
        for name in sorted(one for names in self.files.names.values() for one in names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in suffixes and stem.startswith(before) and stem.endswith(after):
                yield stem[len(before) : len(stem) - len(after)]

    def doubles(self) -> list[str]:
        """Return a fault for each frame with several files that `.*` could mean."""
        if not self.pattern.endswith(".*"):
            return []
        return [
            f"{self.folder} holds {' and '.join(names)}: remove one"
            for names in self._by_stem.values()
            if len(names) > 1
        ]


def read_listing(card: TargetCard, root: Path) -> Listing:
    """Read which frames are in which split; frames keep the order of the lists.

    Raises:
        LayoutError: a folder or list is missing, empty or wrong, two files have the same name, or a group crosses splits.
    """
    base = root / card.inside if card.inside and (root / card.inside).is_dir() else root
    places = _Places(card, base)
    labels, problems = _label_patterns(card, places)
    missing = [place.folder for split in card.split_values if not (place := places[card.images, split]).folder.is_dir()]
    problems += [f"  no folder {folder}" for folder in dict.fromkeys(missing)]
    listed, groups, faults = _listed(card, places)
    problems += [*faults, *_forms(card, base, listed)]
    if problems:
        raise LayoutError("\n".join(problems))
    splits: dict[str, list[Frame]] = {}
    wanted: dict[Place, dict[str, list[str]]] = defaultdict(dict)  # place -> split -> file names
    for split, stems in listed.items():
        images, *drawn = (places[pattern, split] for pattern in (card.images, *labels))
        splits[split] = [_frame(stem, images, drawn, groups[split, stem]) for stem in stems]
        for place in (images, *drawn):
            wanted[place][split] = [place.name_of(stem) for stem in stems]
            problems += [f"  {fault}" for fault in place.doubles()]
    notes = _notes_on_masks(card, labels, places)
    for place, names in wanted.items():
        beyond = f"are not listed in {next(iter(names))}" if len(names) == 1 else "are not listed"
        faults, more = place.files.differences((name for some in names.values() for name in some), beyond)
        problems, notes = [*problems, *(f"  {fault}" for fault in faults)], [*notes, *more]
    problems += _crossing(card, splits)
    if problems:
        raise LayoutError("\n".join(dict.fromkeys(problems)))
    return Listing(splits, (*notes, *_gone_from_pool(card, base)))


def read_list(path: Path) -> list[str]:
    """Read the names of a list file: one a line, with or without suffix; blank lines and CRLF are allowed."""
    lines = (line.strip() for line in read_regular(path).decode("utf-8-sig").splitlines())
    return [_without_suffix(line.replace("\\", "/").removeprefix("./")) for line in lines if line]


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


class _Places(dict[tuple[str, str], Place]):
    """The places of a card's files by (pattern, split); each folder is listed once."""

    def __init__(self, card: TargetCard, base: Path) -> None:
        super().__init__()
        self.base, self._folders = base, card.folders or {}

    def __missing__(self, key: tuple[str, str]) -> Place:
        pattern, split = key
        self[key] = Place.of(self.base, pattern, self._folders.get(split, split))
        return self[key]


def _label_patterns(card: TargetCard, places: _Places) -> tuple[list[str], list[str]]:
    """Return the patterns of label maps whose folder is there, and problems."""
    there = [p for p in card.labels if all(places[p, split].folder.is_dir() for split in card.split_values)]
    if there:
        return there, []
    first = next(iter(card.split_values))
    names = " or ".join(places[pattern, first].folder.relative_to(places.base).as_posix() for pattern in card.labels)
    return [], [f"  no mask folder: {names} must be in {places.base}"]


def _notes_on_masks(card: TargetCard, labels: Sequence[str], places: _Places) -> list[str]:
    if len(labels) < 2:
        return []
    first = places[labels[0], next(iter(card.split_values))].folder.name
    return [f"both mask folders exist and hold the same labels; {first} is read"]


Listed = dict[str, list[str]]  # split -> frames
GroupsOf = dict[tuple[str, str], str]  # (split, frame) -> group


def _listed(card: TargetCard, places: _Places) -> tuple[Listed, GroupsOf, list[str]]:
    """Return the frames of each split with their groups, and problems."""
    if card.index is not None:
        return _from_index(card, places.base)
    listed, problems = _from_lists(card, places.base) if card.lists is not None else _from_folders(card, places)
    groups = {(split, stem): _group(card, stem) for split, stems in listed.items() for stem in stems}
    return listed, groups, problems


def _from_lists(card: TargetCard, base: Path) -> tuple[Listed, list[str]]:
    listed, problems = Listed(), list[str]()
    whole = "<path>" in card.images
    for split, name in (card.lists or {}).items():
        try:
            names = read_list(base / name)
            listed[split] = names if whole else [stem.rsplit("/", 1)[-1] for stem in names]
            problems += [] if names else [f"  {base / name} is empty: it must hold one file name a line"]
        except OSError as error:
            problems.append(
                f"  {base / name} cannot be read: {error.strerror}; it lists the frames of {split}, one file name a line: "
                f"copy it from {card.name}, or write it"
            )
        except UnicodeDecodeError as error:
            problems.append(f"  {base / name} cannot be read: {error}; save it as plain UTF-8 text")
    return listed, problems


def _from_folders(card: TargetCard, places: _Places) -> tuple[Listed, list[str]]:
    listed = {split: list(places[card.images, split].stems()) for split in card.split_values}
    empty = [split for split, stems in listed.items() if not stems]
    there = {split: places[card.images, split] for split in empty}
    return listed, [
        f"  {place.folder} holds no file like {place.pattern}" for place in there.values() if place.folder.is_dir()
    ]


def _from_index(card: TargetCard, base: Path) -> tuple[Listed, GroupsOf, list[str]]:
    assert card.index is not None
    path, of_group = base / card.index.file, card.groups.columns if card.groups else ()
    columns = [card.index.name, card.index.split, *of_group]
    try:
        rows = read_rows(path, columns)
    except ListError as error:
        last = f"{', '.join(columns[:-1])} and {columns[-1]}"
        why = f"  {error}; {path.name} lists every frame in the columns {last}: see bench/targets/README.md"
        return {}, {}, [why]
    of_value = {value: split for split, value in card.split_values.items()}
    known = {*of_value, card.unlabelled}
    listed: Listed = {split: [] for split in card.split_values}
    groups: GroupsOf = {}
    first: dict[tuple[str, str], str] = {}
    for line, (name, value, *more) in rows:
        if value not in known:
            return {}, {}, [f"  {path}, line {line}: unknown split '{value}'"]
        stem = _without_suffix(name.replace("\\", "/")) if "<path>" in card.images else stem_of(name)
        group = nested(*more) if more else _group(card, stem)
        if first.setdefault((plain(name), value), group) != group:
            return {}, {}, [f"  {path}, line {line}: {name} is listed twice, with different groups"]
        if value in of_value:
            listed[of_value[value]].append(stem)
            groups[of_value[value], stem] = group
    empty = [split for split, stems in listed.items() if not stems]
    return listed, groups, [f"  {path} lists no frame for {', '.join(empty)}"] if empty else []


def _forms(card: TargetCard, base: Path, listed: Listed) -> list[str]:
    """Return a problem for each frame that is listed in two Unicode forms."""
    if card.index is not None:
        names = dict.fromkeys(listed, f"{base / card.index.file}, ")
        return [f"  {names[s]}{s}: {fault}" for s, stems in listed.items() for fault in two_forms(stems)]
    where = card.lists or card.folders or {}
    return [f"  {base / where[s]}: {fault}" for s, stems in listed.items() for fault in two_forms(stems)]


def _frame(stem: str, images: Place, drawn: Sequence[Place], group: str) -> Frame:
    label, *twin = (place.files.find(place.name_of(stem)) for place in drawn)
    return Frame(stem, images.files.find(images.name_of(stem)), label, group, twin[0] if twin else None)


def _group(card: TargetCard, stem: str) -> str:
    if card.groups is None:
        return block_of(stem)
    if card.groups.folder:
        return nested(stem.split("/", 1)[0]) if "/" in stem else ""
    match = re.search(card.groups.pattern or "", stem)
    return "" if match is None else nested(" ".join(part or "" for part in match.groups()) or match.group())


def _crossing(card: TargetCard, splits: Mapping[str, Iterable[Frame]]) -> list[str]:
    """Return problems of groups: frames without one, and groups in several splits."""
    if card.groups is None:
        return []
    alone = [frame.id for frames in splits.values() for frame in frames if not frame.group]
    how = f"pattern '{card.groups.pattern}' does not match" if card.groups.pattern else "path has no folder"
    problems = [f"  {len(alone)} frames have no group: the {how} (first: {alone[0]})"] if alone else []
    where: dict[str, set[str]] = defaultdict(set)
    for split, frames in splits.items():
        for frame in frames:
            where[frame.group].add(split)
    crossing = sorted(group for group, some in where.items() if group and len(some) > 1)
    if crossing and not card.groups.may_cross:
        some = " and ".join(split for split in splits if split in where[crossing[0]])
        problems.append(
            f"  {len(crossing)} groups have frames in several splits (first: {crossing[0]}, in {some}): frames of a group are "
            "alike, so scores would be too high; move them, or set `may_cross: true` in the card's groups"
        )
    return problems


def _gone_from_pool(card: TargetCard, base: Path) -> list[str]:
    """Return a note on unlabelled images of the index that are missing."""
    if card.index is None:
        return []
    columns = (card.index.name, card.index.split)
    files = Folder.of(base / card.unlabelled).names.values()
    there = {plain(name) for names in files for name in names}
    gone = [
        name
        for _, (name, value) in read_rows(base / card.index.file, columns)
        if value == card.unlabelled and plain(stem_of(name)) not in there
    ]
    if not there or not gone:
        return []
    return [f"{len(gone)} unlabelled images of {card.index.file} are not in {card.unlabelled}/ (first: {gone[0]})"]


def pool_groups(card: TargetCard, root: Path) -> Mapping[str, str] | None:
    """Return the group of each unlabelled image, where the index names groups."""
    if card.index is None or card.groups is None or card.groups.column is None:
        return None
    return read_groups(root / card.index.file, card.groups.column)
