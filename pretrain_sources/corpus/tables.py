"""Reading a corpus from its tables, without reading the images."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pretrain_sources.corpus.manifest import CorpusError, made_manifest
from pretrain_sources.hashing import fingerprint
from safe_io.files import open_regular


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
    """Images with label maps, ordered by name."""

    num_classes: int
    images: tuple[CorpusImage, ...]

    @functools.cached_property
    def content_hash(self) -> str:
        """Return a hash of all images and label maps."""
        return content_hash(self.num_classes, ((i.id, i.sha256, i.label_sha256) for i in self.images))


def content_hash(num_classes: int, rows: Iterable[tuple[str, str, str]]) -> str:
    """Return the sha256 of the number of classes and of each image's name, hash and label map's hash."""
    return fingerprint([num_classes, sorted(rows)])


def read_corpus(folder: Path, images: Path | None = None) -> Corpus:
    """Read a corpus from its tables. `check_corpus` also reads its files.

    images: folder of its images, if not <folder>/images.

    Raises:
        CorpusError: it is missing, incomplete, or its table does not match its manifest.
    """
    manifest = made_manifest(folder)
    corpus = Corpus(manifest.num_classes, listed_images(folder, images or folder / "images"))
    if corpus.content_hash != manifest.content_hash:
        raise CorpusError(f"{folder}: images.parquet does not match manifest.json; make the corpus again")
    return corpus


def listed_images(folder: Path, images: Path) -> tuple[CorpusImage, ...]:
    """Return the images in images.parquet, without refused ones."""
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
    """Read the rows of images.parquet.

    Raises:
        CorpusError: it cannot be read, or has a path outside of the corpus.
    """
    path = folder / "images.parquet"
    try:
        with open_regular(path) as file:
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"cannot read {path}: {error}; make the corpus again") from error
    if out := [name for row in rows for name in (row["file"], row["image"]) if not _is_inside(name)]:
        raise CorpusError(f"{path} has the path '{out[0]}', which is outside of the corpus: refused")
    return rows


def _is_inside(name: str) -> bool:
    """Return whether a relative path stays inside its folder."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts and "\\" not in name


def label_path(folder: Path, image: str) -> Path:
    """Return the path of the label map of this image."""
    return folder / "labels" / f"{image}.png"


def rows_of(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return the arguments of `content_hash` from rows of images.parquet."""
    return [(row["image"], row["sha256"], row["label_sha256"]) for row in rows if not row["refused"]]
