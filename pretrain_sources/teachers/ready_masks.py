"""Ready-made masks of named images: locating, hashing and reading them, and matching their names with a pool's.

Nothing is opened by a name in the files: names of images are only compared, and masks of a folder are found by number.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from pretrain_sources.hashing import fingerprint
from pretrain_sources.lists import composed, plain
from pretrain_sources.recipe import CocoTeacher
from pretrain_sources.teachers import amg_folder, coco
from pretrain_sources.teachers.contract import TeacherError
from pretrain_sources.teachers.ready_file import MOST_BYTES, ReadyFile
from safe_io.files import sha256_of, short_digest

ORACLE_FILE = "oracle-masks.json"  # path in the card of satir/oracle


def expected_sha256(settings: CocoTeacher, weights: Path) -> str | None:
    """Return the sha256 that the masks must have: as set, or that of the file; None if it is missing.

    That of a folder is over the names and the sha256 of its files.
    """
    path = _local_path(settings, weights)
    return settings.sha256 or (None if path is None else _sha256(path))


def obstacle(settings: CocoTeacher, weights: Path) -> str | None:
    """Return why the masks cannot be read and what to do, or None. The content of a file is not parsed."""
    path = _local_path(settings, weights)
    if path is None:
        fix = "write it with `bench corpus oracle`" if settings.oracle else "put it there, or correct `path`"
        return f"no masks {settings.path} beside the card nor in {weights}: {fix}"
    if not path.is_dir() and (size := path.stat().st_size) > MOST_BYTES:
        return (
            f"{path} has {size / 1e6:,.0f} MB, and at most {MOST_BYTES / 1e6:.0f} MB are read: use a folder of amg.py, "
            "compressed run lengths in place of polygons, or split the pool and its masks"
        )
    return None


def read(settings: CocoTeacher, weights: Path) -> ReadyFile:
    """Read all masks, without decoding them.

    Raises:
        TeacherError: they are missing, too large, invalid, or have another sha256 than `settings.sha256`.
    """
    if stop := obstacle(settings, weights):
        raise TeacherError(stop)
    path = _local_path(settings, weights)
    assert path is not None
    if settings.sha256 not in (None, actual := _sha256(path)):
        raise TeacherError(
            f"{path} has sha256 {short_digest(actual)}, expected {short_digest(str(settings.sha256))}: "
            "run the same command again if you changed it, or fix `sha256`"
        )
    found = amg_folder.read(path) if path.is_dir() else coco.read(path)
    if found.oracle and not settings.oracle:
        fix = "add `oracle: true` beside `kind: coco` in a card"
        raise TeacherError(f"{path} says that people annotated its masks: {fix}")
    return found


def matched(found: ReadyFile, ids: Sequence[str]) -> dict[str, int]:
    """Return id of an image of the pool -> index of its masks in the file. Images without masks are missing.

    A name is an image's if both paths are equal without suffix, or if one ends with the other: `a.jpg` is `flight/a`.

    Raises:
        TeacherError: a name may be of two images, or an image may have two names.
    """
    id_of = {composed(one): one for one in ids}
    index: dict[str, int] = {}
    loose: list[int] = []
    for i, image in enumerate(found.images):
        if (same := id_of.get(plain(image.name))) is None:
            loose.append(i)
        else:
            _assign(index, same, i, found)
    by_base: dict[str, list[str]] = {}
    for path in id_of.keys() - {composed(one) for one in index}:
        by_base.setdefault(os.path.basename(path), []).append(path)
    for i in loose:
        name = plain(found.images[i].name)
        fitting = sorted(path for path in by_base.get(os.path.basename(name), ()) if _ends_with(name, path))
        if len(fitting) > 1:
            raise TeacherError(
                f"{found.path}: '{found.images[i].name}' may be {fitting[0]} or {fitting[1]} of the pool: add the folder"
            )
        if fitting:
            _assign(index, id_of[fitting[0]], i, found)
    return index


def _assign(index: dict[str, int], image: str, i: int, found: ReadyFile) -> None:
    if image in index:
        names = [found.images[index[image]].name, found.images[i].name]
        raise TeacherError(
            f"{found.path}: '{names[0]}' and '{names[1]}' are both the image {image} of the pool: keep one"
        )
    index[image] = i


def _ends_with(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _local_path(settings: CocoTeacher, weights: Path) -> Path | None:
    return next((path for path in (Path(settings.path), weights / settings.path) if path.exists()), None)


def _sha256(path: Path) -> str:
    if not path.is_dir():
        return _digest(path)
    files = sorted(Path(above, name) for above, _, names in os.walk(path) for name in names if not name.startswith("."))
    return fingerprint([[file.relative_to(path).as_posix(), _digest(file)] for file in files])


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise TeacherError(f"cannot read the masks {path}: {error.strerror}") from error
