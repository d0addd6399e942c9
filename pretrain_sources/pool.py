"""The pool: unlabelled thermal images that pseudo-labels are made from. Listed and hashed here, decoded one at a time."""

import csv
import functools
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from pretrain_sources.card import Subset
from pretrain_sources.identity import fingerprint
from safe_files import open_regular, sealed, unsealed, write_whole

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".npy")
GROUPS_FILE = "groups.csv"  # in a pool: file, group
CACHED = "pool 1"  # raised when the hash of the same file is another
BLOCK = 20  # neighbouring numbers in file names that count as one group where nothing is known of groups


class HasContent(Protocol):
    """What a subset is drawn by."""

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
    """One unlabelled image. `id` is its path below the pool without the suffix; images of one group are not independent."""

    id: str
    path: Path
    group: str
    sha256: str


@dataclass(frozen=True)
class Pool:
    """Unlabelled images in the order of their names; byte-identical ones stand once."""

    root: Path
    images: tuple[PoolImage, ...]
    repeated: int = 0  # images left out because an identical one stands before them

    @functools.cached_property
    def content_hash(self) -> str:
        """Changes with any name, group or byte."""
        return images_hash(self.images)


def images_hash(images: Iterable[HasContent]) -> str:
    """sha256 over names, groups and bytes of these images, in any order."""
    return fingerprint(sorted([image.id, image.group, image.sha256] for image in images))


def read_pool(
    root: Path,
    groups: Mapping[str, str] | None = None,
    cache: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
    keep_repeated: bool = False,
) -> Pool:
    """Every image below `root`. `groups`: id -> group where a target knows them; `cache` remembers hashes of unchanged files.

    Otherwise the group comes from groups.csv (file,group) in the pool, else from the first folder below it, else from the
    number in the file's name, twenty neighbouring numbers together. keep_repeated: byte-identical images stay.

    Raises:
        PoolError: there is no image, or two images differ in nothing but the suffix.
    """
    if not root.is_dir():
        raise PoolError(f"no folder {root} with unlabelled images")
    files = sorted(_walk(root))
    if not files:
        raise PoolError(f"no image in {root}: a pool holds {', '.join(SUFFIXES)} files, in folders or not")
    if strange := [name for name, _, _ in files if not name.isprintable()]:
        raise PoolError(f"{root}: the file name {strange[0]!r} is no plain UTF-8 text; rename it")
    ids = [os.path.splitext(name)[0] for name, _, _ in files]
    if doubles := [name for name, count in Counter(ids).items() if count > 1]:
        raise PoolError(f"{root}: {len(doubles)} names stand twice with other suffixes, the first {doubles[0]}")
    group_of = _groups(root, groups)
    images = [
        PoolImage(name, root / file, group_of(name), sha256)
        for name, (file, _, _), sha256 in zip(ids, files, _hashes(root, files, cache, report), strict=True)
    ]
    if keep_repeated:
        return Pool(root, tuple(images))
    unique = {image.sha256: image for image in reversed(images)}  # of equal ones the first stays
    kept = tuple(image for image in images if unique[image.sha256] is image)
    return Pool(root, kept, len(images) - len(kept))


def choose(images: Sequence[Member], subset: Subset | None) -> tuple[Member, ...]:
    """The images that a subset names, in the pool's order: exact, seeded and nested (the smaller lies within the larger).

    Raises:
        PoolError: there are not as many images or groups.
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
        raise PoolError(f"{n} images asked for, but {where} {len(order)}")
    chosen = {image.id for image in order[:n]}
    return tuple(image for image in images if image.id in chosen)


def _from_groups(order: list[Member], groups: int, seed: int) -> list[Member]:
    """Images of that many drawn groups, one of each in turn, so that any number of them is spread over all."""
    names = sorted({image.group for image in order}, key=lambda group: fingerprint([seed, "group", group]))
    if groups > len(names):
        raise PoolError(f"{groups} groups asked for, but the pool has {len(names)}")
    queues = [[image for image in order if image.group == name] for name in names[:groups]]
    return [image for turn in zip_longest(*queues) for image in turn if image is not None]


def evenly(things: tuple[T, ...], at_most: int | None) -> tuple[T, ...]:
    """So many of them, evenly spaced; all where `at_most` is None or no less than there are."""
    if at_most is None or len(things) <= at_most:
        return things
    return tuple(things[i] for i in np.linspace(0, len(things) - 1, at_most).round().astype(int))


def block_of(stem: str) -> str:
    """The numbering block that a file name belongs to: its name without the last number, and that number div 20."""
    number = re.search(r"(\d+)(?!.*\d)", re.sub(r"\s*\(\d+\)|~\d*$", "", stem))  # "(1)" and "~" mark copies
    return f"{stem[: number.start()]}#{int(number.group(1)) // BLOCK}" if number else stem


def _walk(root: Path) -> Iterator[tuple[str, int, int]]:
    """(path below root, size in bytes, time of change) of every image; hidden files and folders are passed over."""
    folders = [""]
    while folders:
        below = folders.pop()
        with os.scandir(root / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{below}{entry.name}/")
                elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                    info = entry.stat()
                    yield below + entry.name, info.st_size, info.st_mtime_ns


def _hashes(
    root: Path, files: Sequence[tuple[str, int, int]], cache: Path | None, report: Callable[[int, int], None]
) -> list[str]:
    known = _read_cache(cache)
    base = root.absolute()
    keys = [f"{base}/{name} {size} {changed}" for name, size, changed in files]
    new = [(key, root / file[0]) for key, file in zip(keys, files, strict=True) if key not in known]
    with ThreadPoolExecutor() as threads:
        for done, (key, sha256) in enumerate(threads.map(lambda item: (item[0], _sha256(item[1])), new), start=1):
            known[key] = sha256
            report(done, len(new))
    if cache is not None and new:
        write_whole(cache, sealed(json.dumps({key: known[key] for key in keys}).encode(), CACHED))
    return [known[key] for key in keys]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_cache(cache: Path | None) -> dict[str, str]:
    try:
        known = json.loads(unsealed(cache.read_bytes(), CACHED)) if cache else {}
    except (OSError, ValueError):
        return {}  # a damaged cache is no cache
    return known if isinstance(known, dict) else {}


def _groups(root: Path, given: Mapping[str, str] | None) -> Callable[[str], str]:
    if given is None and (root / GROUPS_FILE).is_file():
        given = read_groups(root / GROUPS_FILE)
    if given is not None:
        known = given
        return lambda name: known.get(name) or known.get(os.path.basename(name)) or block_of(name)
    return lambda name: name.split("/")[0] if "/" in name else block_of(name)


def read_groups(path: Path, column: str = "group") -> dict[str, str]:
    """File name, with and without suffix -> group, from a CSV file with the columns `file` and `column`.

    Raises:
        PoolError: it cannot be read, or a column is missing.
    """
    try:
        with io.TextIOWrapper(open_regular(path), newline="", encoding="utf-8-sig") as file:
            rows = [(row["file"], row[column]) for row in csv.DictReader(file)]
            return {name: group for file_name, group in rows for name in (file_name, os.path.splitext(file_name)[0])}
    except KeyError as error:
        raise PoolError(f"{path} has no column {error}: it must have file,{column}") from error
    except (OSError, UnicodeDecodeError, csv.Error, TypeError) as error:
        raise PoolError(f"cannot read {path}: {error}") from error
