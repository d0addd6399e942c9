"""Units of work and their identity. A unit's fingerprint is a hash of all that shapes its result, so a store can say what is done.

Git commit, package versions and device are provenance, not identity: an edit of the README must not rerun a matrix.
"""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from backbones.imagenet import Origin
from backbones.spec import BackboneSpec
from bench.spec import Cell, Protocol
from bench.targets import Target
from pretrain_sources.card import SourceCard
from pretrain_sources.hashing import fingerprint
from pretrain_sources.pool import Pool
from pretrain_sources.recipe import HAS_SEEN
from results.locks import HeldError
from results.record import Status

Kind = Literal["corpus", "pretrain", "tune", "final"]
# files in the folder of a unit besides its result
CHECKPOINT = "checkpoint.pt"  # of a training that takes long, until it is done
CLAIM = ".claim"  # locked while a process is at it; the kernel frees it when that one dies
PROGRESS = "progress.json"  # how far it has got, for whoever looks from elsewhere
LOG = "log.txt"  # what it printed
OUTCOME = "outcome.json"  # how it failed, for the units that need it
SPENT = "spent.json"  # how long it took, for plans
NETWORK = "network.safetensors"  # of a final, where it is to be kept: what it was scored with
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order of the stages

# Raise a stage's number by hand when its code changes what it computes: tests/test_golden.py fails until that is done.
RESULT_VERSION: dict[Kind, int] = {"corpus": 1, "pretrain": 1, "tune": 1, "final": 1}


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work. Equal fingerprints mean the same result, so shared units are done once.

    `inputs` is what shapes a corpus or a pretraining besides code, backbone and protocol; JSON values.
    """

    kind: Kind
    cell: Cell
    card: SourceCard
    backbone: BackboneSpec
    protocol: Protocol
    target_hash: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None  # of ImageNet weights
    images: int = 0  # in the corpus
    replicate: int | None = None  # a final has one, and a pretraining that is drawn anew for each
    needs: tuple["Unit", ...] = ()
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self._identity() | {"replicate": self.replicate}))

    @functools.cached_property
    def cell_fingerprint(self) -> str:
        """The identity of a cell, the same for all of its replicates."""
        return fingerprint(self._identity() | {"needs": [unit.cell_fingerprint for unit in self.needs]})

    def need(self, kind: Kind) -> "Unit | None":
        """The unit of that kind whose result this one takes, or None."""
        return next((unit for unit in self.needs if unit.kind == kind), None)

    @property
    def learner(self) -> "Unit | None":
        """The pretraining on a corpus that these weights, permuted or not, come from; None where there is none."""
        if self.kind != "pretrain":
            pretrained = self.need("pretrain")
            return pretrained.learner if pretrained else None
        if "origin" in self.inputs or "checkpoint" in self.inputs:
            return None
        start = self.need("pretrain")
        return start.learner if "permuted" in self.inputs and start else self

    @property
    def pretrain_steps(self) -> int:
        """Optimiser steps on the corpus, about: equal passes count what is left of it after some is held out."""
        return self.protocol.steps_on(self.images)

    @property
    def finetune_steps(self) -> int:
        """Optimiser steps on the target; `long` sources get the steps of a pretraining stage on top."""
        return self.protocol.finetune_steps + ((self.protocol.pretrain_steps or 0) if self.card.long else 0)

    @property
    def by(self) -> str:
        """What its pace goes by, besides its kind: the teacher that a corpus asks (its fingerprint), else the backbone."""
        return fingerprint(self.inputs["teacher"]) if self.kind == "corpus" else self.backbone.name

    @property
    def weights(self) -> str | None:
        """Where the encoder's weights come from, in words; None for random ones."""
        if self.kind != "pretrain":
            pretrained = self.need("pretrain")
            return pretrained.weights if pretrained else None
        if self.origin is not None:
            return self.origin.name
        start = self.need("pretrain")
        begin = f", from {start.weights}" if start else ""
        if "permuted" in self.inputs:
            return f"permuted{begin}"
        return f"pretrained here, {self.card.name}{begin}"

    @property
    def leak(self) -> str | None:
        """What a teacher on the way to these weights has seen of the target; None where nothing is known."""
        if self.cell.target in self.card.training_data:
            return f"its card names {self.cell.target} among what it has seen"
        seen = HAS_SEEN.get(self.inputs.get("teacher", {}).get("model"), {})
        return seen.get(self.cell.target) or next((unit.leak for unit in self.needs if unit.leak), None)

    def work(self, target: Target) -> int:
        """About how many training steps this is worth; predicting and scoring a frame costs about one, and so does a mask pass."""
        if self.kind in ("corpus", "pretrain"):
            return 1 if self.origin else self.images if self.kind == "corpus" else self.pretrain_steps
        frames = {
            split: min(len(found), self.protocol.max_frames or len(found)) for split, found in target.splits.items()
        }
        if self.kind == "tune":
            return self.protocol.trials * (self.finetune_steps + frames[self.protocol.select_on])
        return self.finetune_steps + frames["test"]

    def spelled_out(self) -> dict[str, Any]:
        """All that the fingerprint is made of, units that are needed included, so that a stranger can work it out anew."""
        mine = self._identity() | {"replicate": self.replicate}
        return mine | {"needs": [unit.spelled_out() for unit in self.needs]} if self.needs else mine

    def __str__(self) -> str:
        number = f" r{self.replicate}" if self.replicate is not None else ""
        if self.kind == "corpus":
            return f"corpus of {self.card.control.of if self.card.control else self.card.name}"
        if self.kind == "pretrain":
            return f"pretrain{number} {self.card.name} x {self.backbone.name}"
        return f"{self.kind}{number} {self.cell}"

    def _identity(self) -> dict[str, Any]:
        shared: dict[str, Any] = {"kind": self.kind, "version": RESULT_VERSION[self.kind], **self.inputs}
        if self.kind == "corpus":
            return shared
        # what many units share stands by its hash: a matrix may have 20,000 of them
        shared |= {"backbone": backbone_hash(self.backbone), "needs": [unit.fingerprint for unit in self.needs]}
        if self.kind == "pretrain":
            return shared | ({} if self.origin else {"protocol": self.protocol.pretraining_hash})
        return shared | {
            "card": self.card.identity_hash,
            "target": self.target_hash,
            "protocol": self.protocol.identity_hash,
            "train_frac": self.cell.train_frac,
        }


@functools.cache
def backbone_hash(spec: BackboneSpec) -> str:
    """Hash of what of a backbone shapes a result. `name` stays: two backbones may share parts but not a row on the board."""
    shaping = {name: value for name, value in asdict(spec).items() if name not in ("hub", "wheel", "for_tests")}
    return fingerprint(shaping)


@dataclass(frozen=True)
class Context:
    """What every unit of a run shares."""

    store: Path
    target: Target
    weights: Path  # the user's folder of downloaded weights
    pool: Pool | None = None
    commit: str | None = None  # of the code, as it was when the run started
    keep: bool = False  # the finetuned networks too


@dataclass(frozen=True)
class Outcome:
    """How a unit ended. `busy`: another run is at it. `waiting`: what it needs is not done, and did not fail either.

    Attributes:
        files: (name, text) to keep beside the records of a failure. fatal: nothing more can be written. inherited: not its own,
            but that of a unit that it needs. died: with its process, so that it could not say so itself. again: it is not
            recorded, and the next run does the unit anew.
    """

    status: Status | Literal["busy", "waiting"]
    reason: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    fatal: bool = False
    inherited: bool = False
    died: bool = False
    again: bool = False


def held_by(error: HeldError) -> Outcome:
    """Somebody else is at it; a lock that a dead process has left is nothing to wait for."""
    return Outcome("failed", str(error), again=True) if error.dead else Outcome("busy", str(error))
