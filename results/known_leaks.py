"""Test images that a source has seen: results of `bench leaks`, and scores without these images (fairness rule 9).

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

LEAST_CLEAN = 0.8  # least share of the test images that must be left to compare a pair


class Near(BaseModel):
    """A near-duplicate of a test image among the images of a source."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    image: str = Field(description="name of the image in the source")
    similarity: float = Field(description="similarity of the aligned gradients, at most 1")
    how: str = Field(description="detected transformation of the test image")


class LeakFinding(BaseModel):
    """Result of one search for near-duplicates of a target's test images among the images of a source."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    source: str
    target: str
    target_hash: str
    images: str = Field(description="hash of the searched images")
    image_count: int = Field(ge=1)
    test_images: int = Field(ge=1)
    touched: dict[str, Near] = Field(description="test image: its nearest near-duplicate")
    threshold: float = Field(description="minimum similarity of a near-duplicate")
    expected_false_alarms: float = Field(ge=0, description="upper bound on the matches to expect without a leak")
    unreadable: int = Field(ge=0, description="images that could not be read and were not searched")
    notes: list[str]
    checked: str = Field(description="UTC time, ISO 8601")

    @property
    def share(self) -> float:
        """Share of the test images that the source has seen."""
        return len(self.touched) / self.test_images


Findings = Mapping[tuple[str, str], tuple[LeakFinding, ...]]  # by target_hash and source


@dataclass(frozen=True)
class KnownLeaks:
    """All leak findings of a store and its submissions, attached to its table.

    Attributes:
        verified: findings made on this store; scores and pairs leave these images out. declared: findings that came in a bundle.
            They are shown, but change no score: otherwise a submitter could exclude the images with bad scores. unreadable:
            files of findings that cannot be read.
    """

    verified: Findings = field(default_factory=dict)
    declared: Findings = field(default_factory=dict)
    unreadable: tuple[Path, ...] = ()

    def __deepcopy__(self, memo: object) -> "KnownLeaks":
        return self  # pandas copies `attrs` in every operation

    def ids(self, target_hash: str, source: str) -> frozenset[str]:
        """Return the test images that the source has seen, from verified findings."""
        return _ids(_of(self.verified, target_hash, source))

    def share(self, target_hash: str, source: str) -> float | None:
        """Return the verified share of test images that the source has seen; None if it was not searched."""
        return _share(_of(self.verified, target_hash, source))

    def said_share(self, target_hash: str, source: str) -> float | None:
        """Return the declared share of test images; None if nothing is declared, or if there is a verified finding."""
        return None if _of(self.verified, target_hash, source) else _share(_of(self.declared, target_hash, source))


def _of(findings: Findings, target_hash: str, source: str) -> list[LeakFinding]:
    """Return the findings on the source, on the parts of its chain, and on the sources that it controls."""
    parts = [source, *source.split("+"), *(part.partition("~")[0] for part in source.split("+"))]
    return [one for part in dict.fromkeys(parts) for one in findings.get((target_hash, part), ())]


def _ids(findings: Iterable[LeakFinding]) -> frozenset[str]:
    return frozenset(name for one in findings for name in one.touched)


def _share(findings: Sequence[LeakFinding]) -> float | None:
    return len(_ids(findings)) / findings[0].test_images if findings else None


def unproven(source: str, share: float) -> str:
    """Describe a source whose leak is declared in its bundle, but not verified."""
    return (
        f"the bundle of {source} declares that it has seen {share:.1%} of the test images; this is not verified on this store "
        f"(`bench leaks --source {source}`), so it is not ranked and no image is left out"
    )


def unsearched(source: str, share: float, split: str) -> str:
    """Describe a source that has seen images of `test`, on the board of another test split."""
    return (
        f"{source} has seen {share:.1%} of the test split 'test'; leak searches do not look at '{split}', so it is not ranked "
        f"and no image is left out"
    )


def path_of(store: Store, target: str, source: str) -> Path:
    """Return the path of the finding on a source, unique per name."""
    return store.root / LEAKS / slug(target) / f"{slug(source)}-{sha256(source.encode())[:8]}.json"


def write(store: Store, finding: LeakFinding) -> Path:
    """Write a finding to the store and return its path.

    Raises:
        StoreError: the file cannot be written.
    """
    path = path_of(store, finding.target, finding.source)
    write_atomic(path, (finding.model_dump_json(indent=1) + "\n").encode())
    return path


def read(stores: Iterable[tuple[Store, str | None]]) -> KnownLeaks:
    """Read the findings of (store, None or bundle name). A bundle can declare findings only on its own source."""
    verified: dict[tuple[str, str], tuple[LeakFinding, ...]] = {}
    declared: dict[tuple[str, str], tuple[LeakFinding, ...]] = {}
    unreadable = []
    for store, name in stores:
        for path in sorted((store.root / LEAKS).glob("*/*.json")):
            one = read_one(path)
            if one is None:
                unreadable.append(path)
            elif name is None or is_of(one.source, name):
                kind, key = (verified if name is None else declared), (one.target_hash, one.source)
                kind[key] = (*kind.get(key, ()), one)
    return KnownLeaks(verified, declared, tuple(unreadable))


def read_one(path: Path) -> LeakFinding | None:
    """Read a finding; None if the file cannot be read."""
    try:
        return LeakFinding.model_validate_json(read_regular(path, MOST_TEXT_BYTES, links=True))
    except (OSError, ValidationError):
        return None


def without(evidence: Evidence, images: frozenset[str]) -> Evidence:
    """Return the evidence without these images."""
    kept = ~np.isin(evidence.image_ids, sorted(images))
    return Evidence(*(getattr(evidence, name)[kept] for name in ("image_ids", "groups", "confusion", "weighted_f")))


def clean_row(root: Path, row: Mapping[Any, Any], images: frozenset[str]) -> dict[Any, Any]:
    """Return a table row with its scores recomputed without these images.

    Raises:
        StoreError: the evidence of the run does not match its record.
    """
    return dict(row) | _scores(EvidenceKey.of_row(Store(root), row), images)


def scored_images(root: Path, row: Mapping[Any, Any]) -> frozenset[str]:
    """Return the test images that a run was scored on.

    Raises:
        StoreError: the evidence of the run does not match its record.
    """
    return _images(EvidenceKey.of_row(Store(root), row))


@functools.lru_cache(maxsize=256)
def _images(key: EvidenceKey) -> frozenset[str]:
    return frozenset(key.read().image_ids.tolist())


@functools.lru_cache(maxsize=4096)
def _scores(key: EvidenceKey, images: frozenset[str]) -> dict[str, Any]:
    return metrics.all_scores(without(key.read(), images)).model_dump()
