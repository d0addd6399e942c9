"""Units of work and their identity. A unit's fingerprint is a hash of all that shapes its result, so a store can say what is done.

Git commit, package versions and device are provenance, not identity: an edit of the README must not rerun a matrix.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from backbones.imagenet import Origin
from backbones.spec import BackboneSpec
from bench.spec import Cell, Protocol
from bench.targets import Target
from pretrain_sources.card import SourceCard
from pretrain_sources.identity import fingerprint
from results.record import Status

Kind = Literal["pretrain", "tune", "final"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order of the stages

# Raise a stage's number by hand when its code changes what it computes: tests/test_golden.py fails until that is done.
RESULT_VERSION: dict[Kind, int] = {"pretrain": 1, "tune": 1, "final": 1}


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work. Equal fingerprints mean the same result, so shared units are done once."""

    kind: Kind
    cell: Cell
    card: SourceCard
    backbone: BackboneSpec
    protocol: Protocol
    origin: Origin | None  # of ImageNet weights
    target_hash: str
    replicate: int | None = None  # only a final has one
    needs: tuple["Unit", ...] = ()
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self._identity() | {"replicate": self.replicate}))

    @property
    def cell_fingerprint(self) -> str:
        """The identity without the replicate."""
        return fingerprint(self._identity())

    @property
    def pretrained(self) -> "Unit | None":
        """The unit that this one takes its encoder weights from; None for random ones."""
        return next((unit for unit in self.needs if unit.kind == "pretrain"), None)

    @property
    def finetune_steps(self) -> int:
        """Optimiser steps on the target; `long` sources get the steps of a pretraining stage on top."""
        return self.protocol.finetune_steps + (self.protocol.pretrain_steps if self.card.long else 0)

    def work(self, target: Target) -> int:
        """About how many training steps this is worth; predicting and scoring a frame costs about one."""
        frames = {
            split: min(len(found), self.protocol.max_frames or len(found)) for split, found in target.splits.items()
        }
        if self.kind == "tune":
            return self.protocol.trials * (self.finetune_steps + frames[self.protocol.select_on])
        return self.finetune_steps + frames["test"] if self.kind == "final" else 1

    def __str__(self) -> str:
        number = f" r{self.replicate}" if self.replicate is not None else ""
        return f"{self.kind}{number} {self.cell}"

    def _identity(self) -> dict[str, Any]:
        # `name` stays: two backbones may share parts but not a row on the board
        backbone = {k: v for k, v in asdict(self.backbone).items() if k not in ("hub", "wheel", "for_tests")}
        shared: dict[str, Any] = {
            "kind": self.kind,
            "version": RESULT_VERSION[self.kind],
            "card": self.card.identity(),
            "backbone": backbone,
        }
        if self.kind == "pretrain":
            return shared | {"origin": self.origin.name if self.origin else None}
        settings = {
            "target": self.target_hash,
            "protocol": self.protocol.identity(),
            "train_frac": self.cell.train_frac,
        }
        return shared | settings | {"needs": [unit.fingerprint for unit in self.needs]}


@dataclass(frozen=True)
class Context:
    """What every unit of a run shares."""

    store: Path
    target: Target
    weights: Path  # the user's folder of downloaded weights
    commit: str | None = None  # of the code, as it was when the run started


@dataclass(frozen=True)
class Outcome:
    """How a unit ended. `fatal` means that nothing more can be written."""

    status: Status
    reason: str | None = None
    files: tuple[tuple[str, str], ...] = ()  # (name, text) to keep beside the records of a failure
    fatal: bool = False


def finals_of(
    cell: Cell, card: SourceCard, backbone: BackboneSpec, protocol: Protocol, origin: Origin | None, target_hash: str
) -> list[Unit]:
    """The runs of one cell, one a replicate; what else has to be done stands in their `needs`."""

    def unit(kind: Kind, replicate: int | None = None, needs: Iterable[Unit] = ()) -> Unit:
        return Unit(kind, cell, card, backbone, protocol, origin, target_hash, replicate, tuple(needs))

    pretrained = [unit("pretrain")] if card.kind == "imagenet" else []
    tuned = unit("tune", needs=pretrained)
    return [unit("final", replicate, [*pretrained, tuned]) for replicate in range(protocol.replicates)]
