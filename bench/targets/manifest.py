"""A target's manifest: the ids of its test images and their pixel counts. It allows checking evidence without the images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench import BenchError
from bench.spec import Protocol
from bench.targets import Target, shipped_targets
from bench.targets.card import TargetSpec
from bench.targets.frames import Frame, decode_mask
from bench.targets.mapping import map_spec, merged, relabelling
from pretrain_sources.image_files import Pixels
from pretrain_sources.pool import evenly
from results.metrics import WINDOW
from results.record import TEST, SplitName
from results.store import write_atomic
from safe_io.files import read_regular

EDGE_DIGITS = 3  # of edge losses, in pixels
MOST_BYTES = 2**28  # of a manifest: a million images
Count = Annotated[int, Field(ge=0)]


Loss = Annotated[float, Field(ge=0)]


class ManifestImage(NamedTuple):
    """A test image: id, group, label pixels of each class, ignore last.

    edge: for each class, how much of its pixels' windows lies outside the image, in pixels (`edge_losses`); it bounds the
    weighted F-measure. Manifests made before 2026-12 have none.
    """

    id: str
    group: str
    pixels: list[Count]
    edge: list[Loss] | None = None


class Manifest(BaseModel):
    """The test splits of a target, without their images."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    target: str
    target_hash: str = Field(description="content hash of the target that it was made from")
    classes: list[str]
    test: list[ManifestImage] = Field(min_length=1, description="in the order in which they are scored")
    further: dict[SplitName, Annotated[list[ManifestImage], Field(min_length=1)]] = Field(
        default_factory=dict, description="images of the further test splits, by split"
    )

    @property
    def key(self) -> tuple[str, str]:
        """Target and content hash. One target has a manifest for each cut of its data."""
        return self.target, self.target_hash

    @model_validator(mode="after")
    def _is_whole(self) -> "Manifest":
        known = shipped_targets().get(self.target)
        if known is not None and tuple(self.classes) != known.classes:
            raise ValueError(f"its classes are not those of {self.target}")
        images = [image for split in (self.test, *self.further.values()) for image in split]
        if any(len(image.pixels) != len(self.classes) + 1 for image in images):
            raise ValueError("an image needs a pixel count for each class and for ignore")
        if any(image.edge is not None and len(image.edge) != len(self.classes) for image in images):
            raise ValueError("an image needs an edge loss for each class")
        if len({image.id for image in images}) != len(images):
            raise ValueError("duplicate image id")
        return self

    def images_of(self, split: str) -> list[ManifestImage]:
        """Return the images of a test split; none if it does not name the split."""
        return self.test if split == TEST else self.further.get(split, [])


Manifests = Mapping[tuple[str, str], Manifest]  # by target and content hash


@dataclass(frozen=True)
class Truth:
    """A test split under a protocol. pixels, edge: (N, K), without ignore; edge is None where the manifest has none."""

    ids: list[str]
    groups: list[str]
    pixels: NDArray[np.int64]
    edge: NDArray[np.float64] | None = None


def make_manifest(target: Target) -> Manifest:
    """Make the manifest of an open target."""
    rows = {split: [_row(frame, target) for frame in target.splits[split]] for split in (TEST, *target.further)}
    return Manifest(
        target=target.spec.name,
        target_hash=target.content_hash,
        classes=list(target.spec.classes),
        test=rows.pop(TEST),
        further=rows,
    )


def _row(frame: Frame, target: Target) -> ManifestImage:
    label = decode_mask(frame.label.read_bytes(), target.coding)
    edge = edge_losses(label, len(target.spec.classes)).round(EDGE_DIGITS).tolist()
    return ManifestImage(frame.id, frame.group, list(target.facts[frame.id].pixels), edge)


def edge_losses(label: Pixels, num_classes: int) -> NDArray[np.float64]:
    """Return (K,) for a label map (H, W): the part of the 7 x 7 Gaussian windows outside the image, summed over each class."""
    rows, columns = (np.convolve(np.ones(n), WINDOW)[len(WINDOW) // 2 :][:n] for n in label.shape)
    lost = 1 - np.outer(rows, columns)
    return np.bincount(label.ravel(), weights=lost.ravel(), minlength=256)[:num_classes].astype(np.float64)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest as JSON, one image a line.

    Raises:
        StoreError: the file cannot be written.
    """
    head = json.dumps(manifest.model_dump(exclude={"test", "further"}), indent=1)[:-2]
    further = ",\n ".join(f"{json.dumps(name)}: {_lines(images)}" for name, images in manifest.further.items())
    more = f',\n "further": {{\n {further}\n }}' if further else ""
    write_atomic(path, f'{head},\n "test": {_lines(manifest.test)}{more}\n}}\n'.encode())


def _lines(images: Sequence[ManifestImage]) -> str:
    rows = ",\n  ".join(json.dumps(list(image), ensure_ascii=False) for image in images)
    return f"[\n  {rows}\n ]"


def shipped_manifests() -> Manifests:
    """Read the manifests that ship (SODA's has to be made from the images)."""
    folder = Path(str(resources.files("bench"))) / "targets" / "manifests"
    return {made.key: made for made in map(read_manifest, sorted(folder.glob("*.json")))}


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        BenchError: the file cannot be read or is not a manifest.
    """
    try:
        return Manifest.model_validate_json(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise BenchError(f"cannot read the manifest {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BenchError(
            f"{path} is not a manifest ({where}: {first['msg']}); make one with `bench data manifest`"
        ) from error


def truth(manifest: Manifest, protocol: Protocol, split: str = TEST) -> Truth:
    """Return what a run under this protocol is scored on in a test split, with its class map and limit on frames applied.

    Raises:
        BenchError: the protocol's class map does not fit the target.
    """
    images: Sequence[ManifestImage] = evenly(tuple(manifest.images_of(split)), protocol.max_frames)
    pixels = [image.pixels for image in images]
    losses = [image.edge for image in images if image.edge is not None]
    edge = np.array(losses, dtype=np.float64) if len(losses) == len(images) else None
    if protocol.class_map is not None:
        whole = TargetSpec(manifest.target, tuple(manifest.classes), "", "")
        spec = map_spec(whole, protocol.class_map)
        relabel = relabelling(whole, spec, protocol.class_map)
        pixels = [list(merged(row, relabel, len(spec.classes))) for row in pixels]
        edge = None if edge is None else _merged_columns(edge, relabel, len(spec.classes))
    counts = np.array(pixels, dtype=np.int64)[:, :-1]
    return Truth([image.id for image in images], [image.group for image in images], counts, edge)


def _merged_columns(values: NDArray[np.float64], relabel: Pixels, num_classes: int) -> NDArray[np.float64]:
    """Return (N, new K): the columns of (N, K) summed by their new label, without ignored classes."""
    whole = np.zeros((len(values), 256))
    np.add.at(whole.T, relabel[: values.shape[1]], values.T)
    return whole[:, :num_classes]
