"""The base of all units: kind, needs, and the fingerprint of everything that affects the result.

The store uses fingerprints to decide what is done; records spell them out, so that they can be verified. Git commit, package
versions and device are provenance, not identity: an edit of the README must not rerun a matrix.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

from bench.spec import Protocol
from pretrain_sources.card import SourceCard
from pretrain_sources.hashing import fingerprint

Kind = Literal["corpus", "pretrain", "tune", "final"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order of the stages
Json = dict[str, Any]

# Increase a stage's number when its code changes results: tests/test_golden.py fails until then.
RESULT_VERSION: dict[Kind, int] = {"corpus": 1, "pretrain": 1, "tune": 1, "final": 1}


class UnitBase:
    """The smallest piece of work. Equal fingerprints mean equal results, so shared units run once.

    Attributes:
        kind: one of the four. replicate: of a final, and of a pretraining that differs between replicates; else None.
        telling: result files that identify the content of the others.
    """

    kind: ClassVar[Kind]
    telling: ClassVar[tuple[str, ...]] = ()
    card: SourceCard
    protocol: Protocol
    replicate: int | None

    @property
    def needs(self) -> "tuple[UnitBase, ...]":
        """The units whose results this one uses."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that affects the result."""
        return fingerprint(self._identity(lambda unit: unit.fingerprint) | {"replicate": self.replicate})

    @cached_property
    def cell_fingerprint(self) -> str:
        """Hash shared by all replicates of a cell."""
        needs = [unit.cell_fingerprint for unit in self.needs]
        return fingerprint(self._identity(lambda unit: None) | {"needs": needs})

    def spelled_out(self) -> Json:
        """Return everything that the fingerprint hashes, including needed units, so that anyone can recompute it."""
        return self._identity(lambda unit: unit.spelled_out()) | {"replicate": self.replicate}

    @property
    def learner(self) -> "UnitBase | None":
        """The pretraining here that is behind the weights, permuted or not; None if there is none."""
        raise NotImplementedError

    def _shaping(self) -> Json:
        """Return what affects the result besides code and needed units, as JSON values."""
        raise NotImplementedError

    def _identity(self, of: Callable[["UnitBase"], Any]) -> Json:
        # shared parts are represented by hashes: a matrix may have 20,000 units
        made: Json = {"kind": self.kind, "version": RESULT_VERSION[self.kind], **self._shaping()}
        return made | {"needs": [of(unit) for unit in self.needs]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnitBase) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)
