"""Test images that a source has seen: what `bench leaks` found, and scores without these images (fairness rule 9).

<store>/leaks/<target>/<source>-<8 hex digits of its name's hash>.json
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results import metrics
from results.bundle import is_of
from results.evidence import Evidence, sha256
from results.evidence_files import EvidenceKey
from results.store import LEAKS, Store, slug, write_atomic
from safe_io.files import MOST_TEXT_BYTES, read_regular

LEAST_CLEAN = 0.8  # of the test images that must be left to judge a pair


class Near(BaseModel):
    """An image of a source that shows what a test image shows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    image: str = Field(description="among the source's images")
    similarity: float = Field(description="of their gradients once aligned, up to 1")
    how: str = Field(description="what was done to the test image, as far as can be told")


class LeakFinding(BaseModel):
    """What one look for near-duplicates of a target's test images among a source's images found."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    source: str
    target: str
    target_hash: str
    images: str = Field(description="hash of the images that were looked through")
    image_count: int = Field(ge=1)
    test_images: int = Field(ge=1)
    touched: dict[str, Near] = Field(description="test image: the image that shows most of it")
    threshold: float = Field(description="least similarity of a near-duplicate")
    expected_false_alarms: float = Field(ge=0, description="at most so many, were nothing leaked")
    unreadable: int = Field(ge=0, description="images that could not be read, so that nothing is known of them")
    notes: list[str]
    checked: str = Field(description="UTC time, ISO 8601")

    @property
    def share(self) -> float:
        """Of the test images that are touched."""
        return len(self.touched) / self.test_images


Findings = Mapping[tuple[str, str], tuple[LeakFinding, ...]]  # by target_hash and source


@dataclass(frozen=True)
class KnownLeaks:
    """What is known of all sources of a store, for a table to carry along.

    Attributes:
        found: looks made here; scores and pairs leave these images out. said: what a bundle says of itself, which is shown and
            changes no score: whoever could name the images could leave out those that went badly. unreadable: files that should
            hold a finding.
    """

    found: Findings = field(default_factory=dict)
    said: Findings = field(default_factory=dict)
    unreadable: tuple[Path, ...] = ()

    def __deepcopy__(self, memo: object) -> "KnownLeaks":
        return self  # pandas copies what a table carries with every step

    def ids(self, target_hash: str, source: str) -> frozenset[str]:
        """The test images that the source has seen, as was found here."""
        return _ids(_of(self.found, target_hash, source))

    def share(self, target_hash: str, source: str) -> float | None:
        """Of the test images, as was found here; None where nobody has looked."""
        return _share(_of(self.found, target_hash, source))

    def said_share(self, target_hash: str, source: str) -> float | None:
        """Of the test images, as its bundle says; None where it says nothing, or where somebody has looked here."""
        return None if _of(self.found, target_hash, source) else _share(_of(self.said, target_hash, source))


def _of(findings: Findings, target_hash: str, source: str) -> list[LeakFinding]:
    """The findings on the source, on those that it starts from, and on what it controls."""
    parts = [source, *source.split("+"), *(part.partition("~")[0] for part in source.split("+"))]
    return [one for part in dict.fromkeys(parts) for one in findings.get((target_hash, part), ())]


def _ids(found: Iterable[LeakFinding]) -> frozenset[str]:
    return frozenset(name for one in found for name in one.touched)


def _share(found: Sequence[LeakFinding]) -> float | None:
    return len(_ids(found)) / found[0].test_images if found else None


def unproven(source: str, share: float) -> str:
    """What to say of a source whose bundle names test images that it has seen."""
    return (
        f"{source} says in its bundle that it has seen {share:.1%} of the test images; that was not found again here "
        f"(`bench leaks --source {source}`), so it has no rank and no image is left out"
    )


def path_of(store: Store, target: str, source: str) -> Path:
    """Where the finding on a source lies; names that differ never share a file."""
    return store.root / LEAKS / slug(target) / f"{slug(source)}-{sha256(source.encode())[:8]}.json"


def write(store: Store, found: LeakFinding) -> Path:
    """Leaves a finding in the store; returns its file.

    Raises:
        StoreError: it cannot be written.
    """
    path = path_of(store, found.target, found.source)
    write_atomic(path, (found.model_dump_json(indent=1) + "\n").encode())
    return path


def read(stores: Iterable[tuple[Store, str | None]]) -> KnownLeaks:
    """The findings of these stores. What came in a bundle (with its name) is what it says of itself, and only of its own source."""
    found: dict[tuple[str, str], tuple[LeakFinding, ...]] = {}
    said: dict[tuple[str, str], tuple[LeakFinding, ...]] = {}
    unreadable = []
    for store, name in stores:
        for path in sorted((store.root / LEAKS).glob("*/*.json")):
            one = read_one(path)
            if one is None:
                unreadable.append(path)
            elif name is None or is_of(one.source, name):
                kind, key = (found if name is None else said), (one.target_hash, one.source)
                kind[key] = (*kind.get(key, ()), one)
    return KnownLeaks(found, said, tuple(unreadable))


def read_one(path: Path) -> LeakFinding | None:
    """The finding in a file, or None where it cannot be read."""
    try:
        return LeakFinding.model_validate_json(read_regular(path, MOST_TEXT_BYTES, links=True))
    except (OSError, ValidationError):
        return None


def without(evidence: Evidence, images: frozenset[str]) -> Evidence:
    """The evidence of the other images."""
    kept = ~np.isin(evidence.image_ids, sorted(images))
    return Evidence(*(getattr(evidence, name)[kept] for name in ("image_ids", "groups", "confusion", "weighted_f")))


def clean_row(root: Path, row: Mapping[Any, Any], images: frozenset[str]) -> dict[Any, Any]:
    """A row of the table with the scores that its run has on the other images.

    Raises:
        StoreError: its evidence is not what its record was made from.
    """
    return dict(row) | _scores(EvidenceKey.of_row(Store(root), row), images)


def scored_images(root: Path, row: Mapping[Any, Any]) -> frozenset[str]:
    """The test images that a run was scored on.

    Raises:
        StoreError: its evidence is not what its record was made from.
    """
    return _images(EvidenceKey.of_row(Store(root), row))


@functools.lru_cache(maxsize=256)
def _images(key: EvidenceKey) -> frozenset[str]:
    return frozenset(key.read().image_ids.tolist())


@functools.lru_cache(maxsize=4096)
def _scores(key: EvidenceKey, images: frozenset[str]) -> dict[str, Any]:
    return metrics.scores(without(key.read(), images)).model_dump()
