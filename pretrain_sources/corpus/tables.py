"""A corpus as its tables list it, taken at its manifest's word."""

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


def read_corpus(folder: Path, images: Path | None = None) -> Corpus:
    """The corpus that was made in a folder, taken at its manifest's word: `check_corpus` reads its files.

    images: where its images are, if not in <folder>/images.

    Raises:
        CorpusError: it is not there, not whole, or its table is not its manifest's.
    """
    manifest = made_manifest(folder)
    corpus = Corpus(manifest.num_classes, listed_images(folder, images or folder / "images"))
    if corpus.content_hash != manifest.content_hash:
        raise CorpusError(f"{folder}: images.parquet is not that of manifest.json; make the corpus anew")
    return corpus


def listed_images(folder: Path, images: Path) -> tuple[CorpusImage, ...]:
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


def rows_of(found: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """What `content_hash` takes, from rows of images.parquet."""
    return [(row["image"], row["sha256"], row["label_sha256"]) for row in found if not row["refused"]]
