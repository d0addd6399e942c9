"""The manifest of a corpus, which marks it as complete."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safe_io.files import read_regular

HALF = ".teacher"  # folder in an unfinished corpus: the teacher's masks so far


class CorpusError(Exception):
    """A corpus cannot be made or used; the message says why and what to do."""


class Manifest(BaseModel):
    """Content and provenance of a corpus. It has no times or paths: the same inputs on the same device give the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    num_classes: int = Field(ge=2, le=255, description="label values are 0..num_classes-1, or 255: ignore")
    recipe: dict[str, Any] = Field(description="rules for label maps, without the teacher")
    teacher: dict[str, Any] = Field(description="settings of the teacher, and the checkpoint's sha256")
    pool_hash: str = Field(description="over names, groups and bytes of the pool's images")
    images: int = Field(ge=1, description="images with a label map")
    masks: int = Field(description="masks that the teacher drew on them")
    refused: dict[str, int] = Field(description="images without a label map, by reason; see images.parquet")
    uncovered_frac: float = Field(ge=0, le=1, description="share of their pixels outside of the kept masks")
    class_px: list[int] = Field(description="pixels of each class, ignore last")
    content_hash: str = Field(description="over images and label maps")
    left_out: dict[str, int] = Field(default_factory=dict, description="ready-made masks that are not used, by reason")
    device: str | None = Field(None, pattern="^(cpu|cuda)$", description="that the teacher drew on; None: unknown")

    def to_json(self) -> str:
        """Return the text of manifest.json. A field that only ready-made masks have is left out where it is empty."""
        return self.model_dump_json(indent=1, exclude=None if self.left_out else {"left_out"})

    def unused_lines(self) -> list[str]:
        """Say which images have no label map, and which ready-made masks are not used."""
        refused = [f"refused: {count} images, {why} (listed in images.parquet)" for why, count in self.refused.items()]
        return [*refused, *(f"not used: {count} {kind}" for kind, count in self.left_out.items())]


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a complete corpus; None if there is none.

    Raises:
        CorpusError: it cannot be read.
    """
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate_json(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise CorpusError(f"cannot read {path}: {error}; make the corpus again") from error


def made_manifest(folder: Path) -> Manifest:
    """Read the manifest of a corpus made by `bench corpus make`.

    Raises:
        CorpusError: there is none.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        refuse_half(folder)
        raise CorpusError(f"{folder} has no manifest.json: it was not made by `bench corpus make`")
    return manifest


def refuse_half(folder: Path) -> None:
    """Raise a CorpusError if the folder is missing or the corpus is unfinished."""
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file, not a corpus" if folder.exists() else f"no such folder: {folder}")
    if (folder / HALF).is_dir():
        raise CorpusError(f"{folder} is not finished: run the same command again to continue")
