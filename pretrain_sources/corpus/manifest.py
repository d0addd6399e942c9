"""What says of a folder that it is a corpus, and whole: its manifest."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safe_io.files import read_regular

HALF = ".teacher"  # a folder in a corpus that is being made: what the teacher drew so far


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
