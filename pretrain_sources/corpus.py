"""A corpus: thermal images with label maps. What a pool and a recipe give, or a ready-made folder; read and checked here.

    <corpus>/images/<file>     (or the pool's own folder)   <corpus>/labels/<name>.png   8-bit label maps
    <corpus>/masks.parquet     a row per mask               <corpus>/images.parquet      a row per image, refused ones too
    <corpus>/contact.png       for a person to judge        <corpus>/manifest.json       written last: the corpus is whole

A ready-made one has images/ and labels/ alone.
"""

import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pretrain_sources.identity import derive_seed, fingerprint
from pretrain_sources.images import IGNORE, MASK_MEND, ImageError, counted, read_image, read_label, strange_labels
from pretrain_sources.lists import Folder, composed
from pretrain_sources.pool import PoolError, read_pool, walk
from safe_io.files import open_regular, read_regular, sealed, stamp, unsealed, write_whole

SHOWN = 5  # problems of one kind that a report names
HALF = ".teacher"  # a folder in a corpus that is being made: what the teacher drew so far
CACHED = "corpus 1"  # raised when the same files are looked at in another way
Report = Callable[[int, int], None]


class CorpusError(Exception):
    """A corpus cannot be made or used; the message says why and what to do."""


class Manifest(BaseModel):
    """What a corpus is and how it came about. Holds no time and no path: the same inputs give the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    num_classes: int = Field(ge=2, le=255, description="label values are 0..num_classes-1, or 255: ignore")
    recipe: dict[str, Any] = Field(description="how masks became label maps; without the teacher")
    teacher: dict[str, Any] = Field(description="what shaped the masks: settings, and the checkpoint's sha256")
    pool_hash: str = Field(description="over names, groups and bytes of the images that were asked about")
    images: int = Field(ge=1, description="images with a label map")
    masks: int = Field(description="masks that the teacher drew on them")
    refused: dict[str, int] = Field(description="images without a label map, by reason; images.parquet names them")
    uncovered_frac: float = Field(ge=0, le=1, description="share of their pixels in no mask that was kept")
    class_px: list[int] = Field(description="pixels of each class, ignore last")
    content_hash: str = Field(description="over images and label maps")


@dataclass(frozen=True)
class CorpusImage:
    """An image with its label map; sizes are (H, W)."""

    id: str
    image: Path
    label: Path
    group: str
    sha256: str
    label_sha256: str
    class_px: tuple[int, ...]  # pixels of each class, ignore last


@dataclass(frozen=True)
class Corpus:
    """Images with label maps, in the order of their names."""

    num_classes: int
    images: tuple[CorpusImage, ...]

    @functools.cached_property
    def content_hash(self) -> str:
        """Changes with any image or label map."""
        return content_hash(self.num_classes, ((i.id, i.sha256, i.label_sha256) for i in self.images))


def content_hash(num_classes: int, rows: Iterable[tuple[str, str, str]]) -> str:
    """sha256 over the classes and, of each image, its name and the hashes of image and label map."""
    return fingerprint([num_classes, sorted(rows)])


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a corpus that was made and is whole, or None.

    Raises:
        CorpusError: there is one, but it cannot be read.
    """
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate_json(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error


def made_manifest(folder: Path) -> Manifest:
    """The manifest of a corpus that was made.

    Raises:
        CorpusError: there is none.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        refuse_half(folder)
        raise CorpusError(f"{folder} has no manifest.json: it was not made by `bench corpus make`")
    return manifest


def refuse_half(folder: Path) -> None:
    """Raises a CorpusError where a corpus was begun and not finished, or where there is no folder."""
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file, not a corpus" if folder.exists() else f"there is no folder {folder}")
    if (folder / HALF).is_dir():
        raise CorpusError(f"{folder} is not finished: give the same command that began it, which goes on there")


def read_corpus(folder: Path, images: Path | None = None) -> Corpus:
    """The corpus that was made in a folder, taken at its manifest's word: `check_corpus` reads its files.

    images: where its images are, if not in <folder>/images.

    Raises:
        CorpusError: it is not there, not whole, or its table is not its manifest's.
    """
    manifest = made_manifest(folder)
    corpus = Corpus(manifest.num_classes, _listed(folder, images or folder / "images"))
    if corpus.content_hash != manifest.content_hash:
        raise CorpusError(f"{folder}: images.parquet is not that of manifest.json; make the corpus anew")
    return corpus


def check_corpus(
    folder: Path,
    images: Path | None = None,
    num_classes: int | None = None,
    cache: Path | None = None,
    report: Report = lambda done, total: None,
) -> tuple[Corpus, list[str]]:
    """(corpus, notes) after every file was read (but those that `cache` knows); a corpus with a manifest is held against it.

    images: where its images are, if not in <folder>/images. num_classes: of a ready-made corpus, which has no manifest.

    Raises:
        CorpusError: it is not there, not whole, or has faults: all of them in one report.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        refuse_half(folder)
    if manifest is not None and num_classes not in (None, manifest.num_classes):
        raise CorpusError(f"{folder} has {manifest.num_classes} classes, not {num_classes}: leave --classes out")
    classes = num_classes if manifest is None else manifest.num_classes
    if classes is None:
        raise CorpusError(
            f"{folder} has no manifest.json: say how many classes its labels have (--classes, or num_classes in a card)"
        )
    listed = None if manifest is None else {image.id: image for image in _listed(folder, images or folder / "images")}
    found, problems, notes = _examined(folder, images or folder / "images", classes, cache, report, listed)
    for image in found:
        made = image if listed is None else listed[image.id]
        if made.sha256 != image.sha256:
            problems["the image is not the one it was made from: make the corpus anew"].append(str(image.image))
        if made.label_sha256 != image.label_sha256:
            problems["the label map is not the one that was made: make the corpus anew"].append(str(image.label))
    if problems:
        total = len(found) + sum(map(len, problems.values())) if listed is None else len(listed)
        raise CorpusError(_told(folder, problems, total))
    corpus = Corpus(classes, found)
    if (alike := _one_class(found, classes)) and manifest is None:
        raise CorpusError(
            f"{folder}: there is nothing to learn: {alike}; are these masks of 0 and {IGNORE}? Labels must be 0..{classes - 1}"
        )
    notes += [f"there is nothing to learn: {alike}"] if alike else []
    if manifest is not None and corpus.content_hash != manifest.content_hash:
        raise CorpusError(f"{folder}: images and label maps are not those of manifest.json: make the corpus anew")
    refused = [f"{count} images refused: {kind}" for kind, count in (manifest.refused if manifest else {}).items()]
    return corpus, [*refused, *notes]


def _one_class(found: Sequence[CorpusImage], num_classes: int) -> str:
    """What label maps of fewer than two classes hold, which leaves nothing to learn; empty where there are two."""
    held = [k for k in range(num_classes) if any(image.class_px[k] for image in found)]
    what = f"nothing but class {held[0]}" if held else "nothing"
    return f"its label maps hold {what} besides {IGNORE}, which is ignored" if len(held) < 2 else ""


def deranged(n: int, seed: int) -> NDArray[np.int64]:
    """(n,) a permutation that leaves nothing in its place, uniform among those (by rejection); a function of (n, seed).

    Raises:
        CorpusError: fewer than two things cannot be deranged.
    """
    if n < 2:
        raise CorpusError("labels of fewer than two images cannot be shuffled between images")
    rng = np.random.default_rng(derive_seed("derangement", n, seed))
    while True:  # about e tries
        order = rng.permutation(n)
        if not (order == np.arange(n)).any():
            return np.asarray(order, dtype=np.int64)


def random_ranks(image: CorpusImage, seed: int) -> NDArray[np.uint8]:
    """(256,) new value of each label: the ranks that occur in one label map permuted at random, 0 and ignore as they were."""
    rng = np.random.default_rng(derive_seed("random ranks", seed, image.sha256))
    ranks = 1 + np.flatnonzero(image.class_px[1:-1])
    table = np.arange(256, dtype=np.uint8)
    table[ranks] = rng.permutation(ranks)
    return table


def _listed(folder: Path, images: Path) -> tuple[CorpusImage, ...]:
    """As images.parquet lists them, refused ones left out."""
    rows = [row for row in image_rows(folder) if not row["refused"]]
    return tuple(
        CorpusImage(
            row["image"],
            images / row["file"],
            label_path(folder, row["image"]),
            row["group"],
            row["sha256"],
            row["label_sha256"],
            tuple(row["class_px"]),
        )
        for row in rows
    )


def image_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of images.parquet.

    Raises:
        CorpusError: it cannot be read, or names a file outside of the corpus.
    """
    path = folder / "images.parquet"
    try:
        with open_regular(path) as file:
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{path} cannot be read: {error}; make the corpus anew") from error
    if out := [name for row in rows for name in (row["file"], row["image"]) if not _below(name)]:
        raise CorpusError(f"{path} names '{out[0]}', which leads out of the corpus: it is not used")
    return rows


def _below(name: str) -> bool:
    """Whether a name stays in the folder that it is relative to."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts and "\\" not in name


def label_path(folder: Path, image: str) -> Path:
    """Where the label map of this image lies."""
    return folder / "labels" / f"{image}.png"


Problems = dict[str, list[str]]  # what is wrong and what to do -> files


def _examined(
    folder: Path,
    images: Path,
    num_classes: int,
    cache: Path | None,
    report: Report,
    listed: Mapping[str, CorpusImage] | None = None,
) -> tuple[tuple[CorpusImage, ...], Problems, list[str]]:
    """Reads every image and label map. `listed`: images that must be there, with their groups, and no others count; None: all."""
    groups = None if listed is None else {composed(image.id): image.group for image in listed.values()}
    try:
        hashes = cache and cache.with_name(f"{cache.stem}-images.json")
        pool = read_pool(images, groups, cache=hashes, keep_repeated=True)
        drawn = walk(folder / "labels")[0] if (folder / "labels").is_dir() else []
    except PoolError as error:
        raise CorpusError(f"{folder} is no corpus: {error}") from error
    members = [image for image in pool.images if listed is None or image.id in listed]
    problems: Problems = defaultdict(list)
    if listed is not None and (gone := sorted(listed.keys() - {image.id for image in members})):
        problems["images are missing: copy them again"] = gone
    known = _read_cache(cache)
    before = set(known)
    found: list[CorpusImage] = []
    notes: list[tuple[str, str]] = []
    maps = Folder.holding(folder / "labels", [name for name, _ in drawn])
    faults, beyond = maps.differences([f"{image.id}.png" for image in members], "belong to no image")
    problems |= {"the label map must be the only one of its image": faults} if faults else {}
    with ThreadPoolExecutor() as threads:  # decoding releases the GIL
        look = functools.partial(_look, num_classes=num_classes, known=known)
        labels = [maps.find(f"{image.id}.png") for image in members]
        looks = threads.map(look, [image.path for image in members], labels)
        for done, (image, label, seen) in enumerate(zip(members, labels, looks, strict=True), start=1):
            report(done, len(members))
            if seen.problem:
                problems[seen.problem].append(seen.where)
            else:
                found.append(
                    CorpusImage(
                        image.id, image.path, label, image.group, image.sha256, seen.label_sha256, seen.class_px
                    )
                )
                notes += [(image.id, note) for note in seen.notes]
            known[seen.key] = seen
    if cache is not None and any(seen.key not in before for seen in known.values()):
        sound = [asdict(seen) for seen in known.values() if not seen.problem]
        write_whole(cache, sealed(json.dumps(sound).encode(), CACHED))
    return tuple(found), problems, [*(pool.notes if listed is None else ()), *beyond, *counted(notes)]


@dataclass(frozen=True)
class _Look:
    key: str  # paths, their stamps, and the number of classes
    problem: str = ""
    where: str = ""
    label_sha256: str = ""
    class_px: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()  # what was converted or left out: "images ..." or "label maps ..."


def _look(image: Path, label: Path, num_classes: int, known: dict[str, _Look]) -> _Look:
    try:
        stats = [path.stat() for path in (image, label)]
    except OSError as error:
        return _Look("", "there is no label map for this image (labels/NAME.png)", str(error.filename))
    key = f"{num_classes} " + " ".join(
        f"{path.absolute()} {stamp(stat)}" for path, stat in zip((image, label), stats, strict=True)
    )
    if key in known:
        return known[key]
    try:
        thermal = read_image(read_regular(image), image.name)
    except (OSError, ImageError) as error:
        mend = f"the image cannot be used: {error.mend}" if isinstance(error, ImageError) and error.mend else ""
        what = error.what if isinstance(error, ImageError) else str(error)
        return _Look(key, mend or "the image cannot be read: copy it again", f"{image} ({what})")
    try:
        data = read_regular(label)
        drawn = read_label(data, label.name)
    except OSError as error:
        return _Look(key, "the label map cannot be read: copy it again", f"{label} ({error})")
    except ImageError as error:
        mend = error.mend if error.mend not in ("", MASK_MEND) else "label maps must be index or palette PNGs of 8 bits"
        return _Look(key, mend, f"{label} ({error.what})")
    (height, width), found = thermal.pixels.shape, drawn.pixels.shape
    if found != (height, width):
        sizes = f"{found[1]}x{found[0]}, its image {width}x{height}"
        return _Look(key, "label map and image must have the same size", f"{label} ({sizes})")
    counts = np.bincount(drawn.pixels.ravel(), minlength=256)
    if strange := strange_labels(counts, num_classes):
        return _Look(key, f"labels must be 0..{num_classes - 1} or {IGNORE}", f"{label} ({strange})")
    pixels_of = (*counts[:num_classes].tolist(), int(counts[IGNORE]))
    blank = ("label maps hold nothing but ignore",) if not any(pixels_of[:-1]) else ()
    notes = (*(f"images {note}" for note in thermal.notes), *(f"label maps {note}" for note in drawn.notes), *blank)
    return _Look(key, label_sha256=hashlib.sha256(data).hexdigest(), class_px=pixels_of, notes=notes)


def _read_cache(cache: Path | None) -> dict[str, _Look]:
    try:
        rows = json.loads(unsealed(cache.read_bytes(), CACHED)) if cache else []
        looks = [_Look(**row | {name: tuple(row[name]) for name in ("class_px", "notes")}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        return {}  # a damaged cache is no cache
    return {look.key: look for look in looks}


def _told(folder: Path, problems: Problems, total: int) -> str:
    count = sum(map(len, problems.values()))
    lines = [f"{folder} cannot be used: {count} problem{'s' * (count > 1)} among {total} images"]
    for mend, where in problems.items():
        lines += [f"  {place}" for place in sorted(where)[:SHOWN]]
        lines += [f"  ... and {len(where) - SHOWN} more of this kind"] if len(where) > SHOWN else []
        lines += [f"  -> {mend}"]
    return "\n".join(lines)


def rows_of(found: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """What `content_hash` takes, from rows of images.parquet."""
    return [(row["image"], row["sha256"], row["label_sha256"]) for row in found if not row["refused"]]
