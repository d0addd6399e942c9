"""What every unit has: its kind, what it needs, and the fingerprint of all that shapes its result.

A store can say by it what is done, and a record that spells it out can be held against it. Git commit, package versions and
device are provenance, not identity: an edit of the README must not rerun a matrix.
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

# Raise a stage's number by hand when its code changes what it computes: tests/test_golden.py fails until that is done.
RESULT_VERSION: dict[Kind, int] = {"corpus": 1, "pretrain": 1, "tune": 1, "final": 1}


class UnitBase:
    """The smallest piece of work. Equal fingerprints mean the same result, so shared units are done once.

    Attributes:
        kind: of the four. replicate: of a final, and of a pretraining that is drawn anew for each; None for all others.
        telling: files it leaves that say what the others hold.
    """

    kind: ClassVar[Kind]
    telling: ClassVar[tuple[str, ...]] = ()
    card: SourceCard
    protocol: Protocol
    replicate: int | None

    @property
    def needs(self) -> "tuple[UnitBase, ...]":
        """The units whose results this one takes."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that shapes its result."""
        return fingerprint(self._identity(lambda unit: unit.fingerprint) | {"replicate": self.replicate})

    @cached_property
    def cell_fingerprint(self) -> str:
        """The same for all replicates of a cell."""
        needs = [unit.cell_fingerprint for unit in self.needs]
        return fingerprint(self._identity(lambda unit: None) | {"needs": needs})

    def spelled_out(self) -> Json:
        """All that the fingerprint is made of, needed units included, so that a stranger can recompute it."""
        return self._identity(lambda unit: unit.spelled_out()) | {"replicate": self.replicate}

    @property
    def learner(self) -> "UnitBase | None":
        """The pretraining on a corpus that the weights come from, permuted since or not; None where there is none."""
        raise NotImplementedError

    def _shaping(self) -> Json:
        """What shapes the result besides code and needed units; JSON values."""
        raise NotImplementedError

    def _identity(self, of: Callable[["UnitBase"], Any]) -> Json:
        # what many units share stands by its hash: a matrix may have 20,000 of them
        made: Json = {"kind": self.kind, "version": RESULT_VERSION[self.kind], **self._shaping()}
        return made | {"needs": [of(unit) for unit in self.needs]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnitBase) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)
