"""Checking a corpus: read every file and report all faults at once."""

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretrain_sources.corpus.manifest import CorpusError, Manifest, read_manifest, refuse_half
from pretrain_sources.corpus.tables import Corpus, CorpusImage, listed_images
from pretrain_sources.file_state import FactCache, stamped
from pretrain_sources.image_files import (
    IGNORE,
    MASK_MEND,
    ImageError,
    SizeMismatchError,
    UnknownLabelError,
    class_pixels,
    counted,
    read_image,
    read_label,
)
from pretrain_sources.lists import Folder, composed
from pretrain_sources.pool import PoolError, read_pool, walk
from safe_io.files import read_regular

SHOWN = 5  # problems of one kind that a report lists
CACHED = "corpus 2"  # raised when files are examined in another way
Report = Callable[[int, int], None]
Problems = dict[str, list[str]]  # what is wrong and what to do -> files


def check_corpus(
    folder: Path,
    images: Path | None = None,
    num_classes: int | None = None,
    cache: Path | None = None,
    report: Report = lambda done, total: None,
) -> tuple[Corpus, list[str]]:
    """Read every file (except those in `cache`) and compare with the manifest, if any; return (corpus, notes).

    images: folder of its images, if not <folder>/images. num_classes: of a ready-made corpus, which has no manifest.

    Raises:
        CorpusError: it is missing, incomplete, or has faults: all of them in one report.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        refuse_half(folder)
    classes, root = _classes(folder, manifest, num_classes), images or folder / "images"
    listed = None if manifest is None else {image.id: image for image in listed_images(folder, root)}
    usable, problems, notes = _examined(folder, root, classes, cache, report, listed)
    if listed is not None:
        _compare(usable, listed, problems)
    if problems:
        total = len(usable) + sum(map(len, problems.values())) if listed is None else len(listed)
        raise CorpusError(_report_text(folder, problems, total))
    corpus = Corpus(classes, usable)
    if (why := _one_class(usable, classes)) and manifest is None:
        raise CorpusError(
            f"{folder}: nothing to learn: {why}; are these masks of 0 and {IGNORE}? Labels must be 0..{classes - 1}"
        )
    notes += [f"nothing to learn: {why}"] if why else []
    if manifest is not None and corpus.content_hash != manifest.content_hash:
        raise CorpusError(f"{folder}: images and label maps do not match manifest.json: make the corpus again")
    refused = [f"{count} images refused: {kind}" for kind, count in (manifest.refused if manifest else {}).items()]
    unused = [f"{count} {kind} were not used" for kind, count in (manifest.left_out if manifest else {}).items()]
    return corpus, [*refused, *unused, *notes]


def _classes(folder: Path, manifest: Manifest | None, given: int | None) -> int:
    """Return the number of classes: from the manifest, or as given for a ready-made corpus."""
    if manifest is not None:
        if given not in (None, manifest.num_classes):
            raise CorpusError(f"{folder} has {manifest.num_classes} classes, not {given}: omit --classes")
        return manifest.num_classes
    if given is None:
        raise CorpusError(
            f"{folder} has no manifest.json: give the number of classes (--classes, or num_classes in a card)"
        )
    return given


def _compare(images: Sequence[CorpusImage], listed: Mapping[str, CorpusImage], problems: Problems) -> None:
    """Add changed files to the problems."""
    for image in images:
        if listed[image.id].sha256 != image.sha256:
            problems["the image has changed: make the corpus again"].append(str(image.image))
        if listed[image.id].label_sha256 != image.label_sha256:
            problems["the label map has changed: make the corpus again"].append(str(image.label))


def _one_class(images: Sequence[CorpusImage], num_classes: int) -> str:
    """Describe label maps with fewer than two classes; empty if there are at least two."""
    used = [k for k in range(num_classes) if any(image.class_px[k] for image in images)]
    what = f"only class {used[0]}" if used else "no class"
    return f"its label maps hold {what} besides {IGNORE} (ignore)" if len(used) < 2 else ""


def _examined(
    folder: Path,
    images: Path,
    num_classes: int,
    cache: Path | None,
    report: Report,
    listed: Mapping[str, CorpusImage] | None = None,
) -> tuple[tuple[CorpusImage, ...], Problems, list[str]]:
    """Read every image and label map. `listed`: the images to read, with their groups; None: all."""
    groups = None if listed is None else {composed(image.id): image.group for image in listed.values()}
    try:
        hashes = cache and cache.with_name(f"{cache.stem}-images.json")
        pool = read_pool(images, groups, cache=hashes, keep_repeated=True)
        drawn = walk(folder / "labels")[0] if (folder / "labels").is_dir() else []
    except PoolError as error:
        raise CorpusError(f"{folder} is not a corpus: {error}") from error
    members = [image for image in pool.images if listed is None or image.id in listed]
    problems: Problems = defaultdict(list)
    if listed is not None and (missing := sorted(listed.keys() - {image.id for image in members})):
        problems["images are missing: copy them again"] = missing
    maps = Folder.holding(folder / "labels", [name for name, _ in drawn])
    faults, beyond = maps.differences([f"{image.id}.png" for image in members], "belong to no image")
    problems |= {"an image must have only one label map": faults} if faults else {}
    labels = {image.id: maps.find(f"{image.id}.png") for image in members}
    looks = _looks({image.id: (image.path, labels[image.id]) for image in members}, num_classes, cache, report)
    usable: list[CorpusImage] = []
    notes: list[tuple[str, str]] = []
    for image in members:
        look, label = looks[image.id], labels[image.id]
        if look.problem:
            problems[look.problem].append(look.where)
            continue
        usable.append(
            CorpusImage(image.id, image.path, label, image.group, image.sha256, look.label_sha256, look.class_px)
        )
        notes += [(image.id, note) for note in look.notes]
    return tuple(usable), problems, [*(pool.notes if listed is None else ()), *beyond, *counted(notes)]


@dataclass(frozen=True)
class _Look:
    """Result of examining an image and its label map."""

    problem: str = ""  # what is wrong and what to do; empty if nothing is
    where: str = ""
    label_sha256: str = ""
    class_px: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()  # on what was converted or left out: "images ..." or "label maps ..."


def _looks(
    pairs: Mapping[str, tuple[Path, Path]], num_classes: int, cache: Path | None, report: Report
) -> dict[str, _Look]:
    """Examine each pair of image and label map; return results by image name. Several corpora share one cache."""
    known = FactCache(
        cache, CACHED, decode=_decoded, encode=asdict, is_sound=lambda look: not look.problem, is_shared=True
    )
    keys = {name: _key(pair, num_classes) for name, pair in pairs.items()}
    wanted = {keys[name]: pair for name, pair in pairs.items()}
    looks = known.look_up(wanted, functools.partial(_look, num_classes=num_classes), report)
    return {name: looks[key] for name, key in keys.items()}


def _key(pair: tuple[Path, Path], num_classes: int) -> str:
    try:
        return f"{num_classes} {stamped(*(path.absolute() for path in pair))}"
    except OSError:
        return f"missing {' '.join(map(str, pair))}"


def _decoded(row: Mapping[str, Any]) -> _Look:
    """Restore a `_Look` from JSON."""
    return _Look(**{**row, "class_px": tuple(row["class_px"]), "notes": tuple(row["notes"])})


def _look(pair: tuple[Path, Path], num_classes: int) -> _Look:
    image, label = pair
    try:
        stamped(*pair)
    except OSError as error:
        return _Look("no label map for this image (labels/NAME.png)", str(error.filename))
    try:
        thermal = read_image(read_regular(image), image.name)
    except (OSError, ImageError) as error:
        fix = f"the image cannot be used: {error.mend}" if isinstance(error, ImageError) and error.mend else ""
        what = error.what if isinstance(error, ImageError) else error.strerror
        return _Look(fix or "the image cannot be read: copy it again", f"{image} ({what})")
    try:
        data = read_regular(label)
        drawn = read_label(data, label.name)
    except OSError as error:
        return _Look("the label map cannot be read: copy it again", f"{label} ({error.strerror})")
    except ImageError as error:
        fix = error.mend if error.mend not in ("", MASK_MEND) else "label maps must be 8-bit index or palette PNGs"
        return _Look(fix, f"{label} ({error.what})")
    try:
        class_px = class_pixels(drawn, thermal, num_classes)
    except SizeMismatchError as error:
        return _Look("label map and image must have the same size", f"{label} ({error})")
    except UnknownLabelError as error:
        return _Look(f"labels must be 0..{num_classes - 1} or {IGNORE}", f"{label} ({error})")
    blank = ("label maps hold only ignore",) if not any(class_px[:-1]) else ()
    notes = (*(f"images {note}" for note in thermal.notes), *(f"label maps {note}" for note in drawn.notes), *blank)
    return _Look(label_sha256=hashlib.sha256(data).hexdigest(), class_px=class_px, notes=notes)


def _report_text(folder: Path, problems: Problems, total: int) -> str:
    count = sum(map(len, problems.values()))
    lines = [f"{folder} cannot be used: {count} problem{'s' * (count > 1)} among {total} images"]
    for fix, where in problems.items():
        lines += [f"  {place}" for place in sorted(where)[:SHOWN]]
        lines += [f"  ... and {len(where) - SHOWN} more of this kind"] if len(where) > SHOWN else []
        lines += [f"  -> {fix}"]
    return "\n".join(lines)
