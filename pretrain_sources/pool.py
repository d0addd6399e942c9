"""The pool of unlabelled thermal images that get pseudo-labels: listing, hashing and subsets."""

import functools
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from pretrain_sources.card import Subset
from pretrain_sources.file_state import FactCache
from pretrain_sources.hashing import fingerprint
from pretrain_sources.image_files import ImageError, counted, read_image
from pretrain_sources.lists import SUFFIXES, ListError, composed, plain, read_rows
from safe_io.files import read_regular, stamp

GROUPS_FILE = "groups.csv"  # in a pool: file, group
CACHED = "pool 1"  # raised when files are hashed in another way
BLOCK = 20  # consecutive numbers in file names that form a group if no groups are given


class HasContent(Protocol):
    """What subsets are drawn from."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def group(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102


T = TypeVar("T")  # Python 3.11 has no def f[T]
Member = TypeVar("Member", bound=HasContent)


class PoolError(Exception):
    """A pool cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class PoolImage:
    """One unlabelled image. `id`: its path below the pool without the suffix. Images of one group are not independent."""

    id: str
    path: Path
    group: str
    sha256: str


@dataclass(frozen=True)
class Pool:
    """Unlabelled images ordered by name, without duplicates."""

    root: Path
    images: tuple[PoolImage, ...]
    repeated: int = 0  # duplicates left out
    notes: tuple[str, ...] = ()  # on files that do not match or were skipped

    @functools.cached_property
    def content_hash(self) -> str:
        """Return a hash of all names, groups and bytes."""
        return images_hash(self.images)


def images_hash(images: Iterable[HasContent]) -> str:
    """Return the sha256 of names, groups and bytes of these images, in any order."""
    return fingerprint(sorted([image.id, image.group, image.sha256] for image in images))


def read_pool(
    root: Path,
    groups: Mapping[str, str] | None = None,
    cache: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
    keep_repeated: bool = False,
) -> Pool:
    """List every image below `root`. Symbolic links are followed, each folder once.

    Groups come from `groups` (id -> group), else from groups.csv (file,group) in the pool, else from the first folder below it,
    else from the number in the file name, twenty consecutive numbers together.

    cache: file for the hashes of unchanged files. keep_repeated: keep byte-identical images.

    Raises:
        PoolError: there are no images, two names differ only in suffix or Unicode form, a link is broken, or groups.csv does not
            match.
    """
    if not root.is_dir():
        raise PoolError(f"no such folder of unlabelled images: {root}")
    files, notes = walk(root)
    if not files:
        raise PoolError(f"no images in {root}: a pool holds {', '.join(SUFFIXES)} files, also in subfolders")
    if unprintable := [name for name, _ in files if not name.isprintable()]:
        raise PoolError(f"{root}: the file name {unprintable[0]!r} is not printable UTF-8; rename it")
    ids = [os.path.splitext(name)[0] for name, _ in files]
    if doubles := [name for name, count in Counter(ids).items() if count > 1]:
        raise PoolError(
            f"{root}: {len(doubles)} names occur with several suffixes, first {doubles[0]}; remove all but one"
        )
    if doubles := [name for name, count in Counter(map(composed, ids)).items() if count > 1]:
        raise PoolError(
            f"{root}: {len(doubles)} names occur in several Unicode forms, first {doubles[0]}; remove all but one"
        )
    group_of, more = _groups(root, ids, groups)
    images = [
        PoolImage(name, root / file, group_of[name], sha256)
        for name, (file, _), sha256 in zip(ids, files, _hashes(root, files, cache, report), strict=True)
    ]
    if keep_repeated:
        return Pool(root, tuple(images), notes=(*notes, *more))
    unique = {image.sha256: image for image in reversed(images)}  # the first of equal ones
    kept = tuple(image for image in images if unique[image.sha256] is image)
    return Pool(root, kept, len(images) - len(kept), (*notes, *more))


def look_through(pool: Pool, report: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
    """Decode every image of a pool; return notes on unusable images and on conversions."""

    def notes_on(image: PoolImage) -> tuple[str, ...]:
        try:
            return read_image(read_regular(image.path), image.path.name).notes
        except (OSError, ImageError) as error:
            return (f"cannot be used and get no label map: {error}",)

    all_notes = []
    with ThreadPoolExecutor() as threads:  # decoding releases the GIL
        for done, (image, notes) in enumerate(
            zip(pool.images, threads.map(notes_on, pool.images), strict=True), start=1
        ):
            all_notes += [(image.path.name, f"images {note}") for note in notes]
            report(done, len(pool.images))
    return counted(all_notes)


def choose(images: Sequence[Member], subset: Subset | None) -> tuple[Member, ...]:
    """Return the images of a subset in the pool's order: exact, seeded and nested (smaller subsets are parts of larger ones).

    Raises:
        PoolError: there are not enough images or groups.
    """
    if subset is None:
        return tuple(images)
    order = sorted(images, key=lambda image: fingerprint([subset.seed, "image", image.sha256]))
    if subset.groups is not None:
        order = _from_groups(order, subset.groups, subset.seed)
    n = len(order) if subset.n is None else subset.count(len(images))
    if subset.groups is not None and n < subset.groups:
        raise PoolError(f"{n} images cannot come from {subset.groups} groups")
    if n > len(order):
        where = f"its {subset.groups} drawn groups have" if subset.groups is not None else "the pool has"
        raise PoolError(f"{n} images requested, but {where} {len(order)}")
    chosen = {image.id for image in order[:n]}
    return tuple(image for image in images if image.id in chosen)


def _from_groups(order: list[Member], groups: int, seed: int) -> list[Member]:
    """Draw groups and alternate between their images, so that any prefix covers all groups."""
    names = sorted({image.group for image in order}, key=lambda group: fingerprint([seed, "group", group]))
    if groups > len(names):
        raise PoolError(f"{groups} groups requested, but the pool has {len(names)}")
    queues = [[image for image in order if image.group == name] for name in names[:groups]]
    return [image for turn in zip_longest(*queues) for image in turn if image is not None]


def evenly(things: tuple[T, ...], at_most: int | None) -> tuple[T, ...]:
    """Return at most so many of them, evenly spaced."""
    if at_most is None or len(things) <= at_most:
        return things
    return tuple(things[i] for i in np.linspace(0, len(things) - 1, at_most).round().astype(int))


def block_of(stem: str) -> str:
    """Return the numbering block of a file name: the name without its last number, and that number div 20."""
    number = re.search(r"(\d+)(?!.*\d)", re.sub(r"\s*\(\d+\)|~\d*$", "", stem))  # "(1)" and "~" mark copies
    return f"{stem[: number.start()]}#{int(number.group(1)) // BLOCK}" if number else stem


def walk(root: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Return ((path below root, stamp) of every image ordered by name, notes). Hidden files and folders are skipped.

    Links are followed last, so that a folder that is also linked keeps its own name.
    """
    files: list[tuple[str, str]] = []
    other, again, seen = list[str](), list[str](), set[tuple[int, int]]()
    folders, linked = [""], list[str]()
    while folders or linked:
        below = folders.pop() if folders else linked.pop(linked.index(min(linked)))
        place = os.stat(root / below)
        if (place.st_dev, place.st_ino) in seen:
            again.append(below)
            continue
        seen.add((place.st_dev, place.st_ino))
        for entry, info in _entries(root, below):
            name = below + entry.name
            if stat.S_ISDIR(info.st_mode):
                (linked if entry.is_symlink() else folders).append(f"{name}/")
            elif entry.name.lower().endswith(SUFFIXES) and stat.S_ISREG(info.st_mode):
                files.append((name, stamp(info)))
            elif name != GROUPS_FILE:
                other.append(name)
    kinds = ", ".join(sorted({os.path.splitext(name)[1].lower() or "no suffix" for name in other}))
    notes = {
        "folders are linked more than once and count once": sorted(again),
        f"files are not images by their suffix and are skipped ({kinds})": sorted(other),
    }
    return sorted(files), [f"{len(names)} {text} (first: {names[0]})" for text, names in notes.items() if names]


def _entries(root: Path, below: str) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """Yield the entries of a folder, with the status of link targets."""
    try:
        with os.scandir(root / below) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise PoolError(f"cannot read {root / below}: {error.strerror}") from error
    for entry in visible:
        try:
            yield entry, entry.stat()
        except OSError as error:
            raise PoolError(f"{entry.path} is a broken link ({error.strerror}): fix or remove it") from error


def _hashes(
    root: Path, files: Sequence[tuple[str, str]], cache: Path | None, report: Callable[[int, int], None]
) -> list[str]:
    base = root.absolute()
    paths = {f"{base}/{name} {state}": root / name for name, state in files}
    hashes = FactCache[str](cache, CACHED, decode=str, encode=str).look_up(paths, _sha256, report)
    return [hashes[key] for key in paths]


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_regular(path)).hexdigest()


def _groups(root: Path, ids: Sequence[str], given: Mapping[str, str] | None) -> tuple[dict[str, str], list[str]]:
    """Return (group of each image, notes on what does not match). given: as returned by `read_groups`, or None."""
    listed = given is None and (root / GROUPS_FILE).is_file()
    known = read_groups(root / GROUPS_FILE) if listed else given
    if known is None:
        return {name: name.split("/")[0] if "/" in name else block_of(name) for name in ids}, []
    whole = set(map(composed, ids))
    line_of = {name: _line_of(name, known, whole) for name in ids}
    used = Counter(line for name, line in line_of.items() if line is not None)
    if listed and (twice := [line for line, count in used.items() if count > 1]):
        names = [name for name in ids if line_of[name] == twice[0]]
        raise PoolError(f"{root}: '{twice[0]}' in {GROUPS_FILE} may be {names[0]} or {names[1]}: add the folder")
    if listed and known and not used:
        raise PoolError(f"{root / GROUPS_FILE} matches no image of the pool; its first line has '{next(iter(known))}'")
    alone = [name for name, line in line_of.items() if line is None]
    unused = [line for line in known if line not in used] if listed else []
    notes = {
        "images are not in the list of groups: their group comes from the number in their name": alone,
        f"lines of {GROUPS_FILE} match no image of the pool": unused,
    }
    groups = {name: block_of(name) if line is None else known[line] for name, line in line_of.items()}
    return groups, [f"{len(names)} {text} (first: {names[0]})" for text, names in notes.items() if names]


def _line_of(name: str, known: Mapping[str, str], paths: Collection[str]) -> str | None:
    """Return the name of an image in a list of groups: its path, or its file name if that is not another image's path."""
    path = composed(name)
    base = os.path.basename(path)
    return path if path in known else base if base in known and base not in paths else None


def read_groups(path: Path, column: str = "group") -> dict[str, str]:
    """Read file name, normalised by `lists.plain`, -> group from a CSV file with the columns `file` and `column`.

    Raises:
        PoolError: it cannot be read, a column is missing, or a file is in two groups.
    """
    groups: dict[str, str] = {}
    try:
        for line, (file, group) in read_rows(path, ("file", column)):
            if groups.setdefault(plain(file), group) != group:
                raise PoolError(f"{path}, line {line}: {file} is in '{group}', but above in '{groups[plain(file)]}'")
    except ListError as error:
        raise PoolError(str(error)) from error
    return groups
