"""The four kinds of unit: a corpus, a pretraining, a tuning and a final run, and what identifies each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from backbones.imagenet import Origin
from backbones.spec import BackboneSpec
from bench.plan.pool_part import PoolPart
from bench.plan.unit import Json, UnitBase
from bench.spec import Cell, Protocol
from pretrain_sources.card import Control, SourceCard
from pretrain_sources.hashing import fingerprint
from pretrain_sources.simmim import SimMIM


@dataclass(frozen=True, eq=False)
class CorpusUnit(UnitBase):
    """Pseudo-labels of a teacher on images of the pool.

    Attributes:
        teacher: its identity. images_hash: content hash of the images; images: their number.
        undrawable: why the card's subset cannot be drawn from the pool, or None.
    """

    kind = "corpus"
    telling = ("manifest.json",)
    replicate = None
    card: SourceCard
    protocol: Protocol
    teacher: Mapping[str, Any]
    images_hash: str
    images: int
    undrawable: str | None = None

    @property
    def needs(self) -> "tuple[Unit, ...]":
        """No units."""
        return ()

    @property
    def learner(self) -> "PretrainUnit | None":
        """None: a corpus has no weights."""
        return None

    def _shaping(self) -> Json:
        if self.undrawable is not None:
            return {"cannot be drawn": self.undrawable}
        assert self.card.recipe is not None
        return {"teacher": self.teacher, "labelling": self.card.recipe.labelling(), "images": self.images_hash}

    def _identity(self, of: Callable[[UnitBase], Any]) -> Json:
        made = super()._identity(of)
        del made["needs"]
        return made

    def __str__(self) -> str:
        return f"corpus of {self.card.control.of if self.card.control else self.card.name}"


@dataclass(frozen=True)
class ReadyLabels:
    """The part of a ready-made corpus that affects results.

    Attributes:
        content_hash: of the images and label maps in use; images: their number. teacher: its identity, from the manifest.
        undrawable: why the card's subset cannot be drawn from it, or None.
    """

    content_hash: str
    images: int
    teacher: Mapping[str, Any] | None = None
    undrawable: str | None = None

    def shaping(self) -> Json:
        """Return what affects results, as JSON values."""
        if self.undrawable is not None:
            return {"cannot be drawn": self.undrawable}
        return {"corpus": self.content_hash} | ({} if self.teacher is None else {"teacher": self.teacher})


# The origins of the weights of a pretraining. A run from random weights has no pretraining.


@dataclass(frozen=True)
class FromImageNet:
    """ImageNet weights of the backbone; `origin` is None if none are known."""

    origin: Origin | None


@dataclass(frozen=True)
class FromCheckpoint:
    """A checkpoint of the card. shaping: its identity. Both are None if the card has none for the backbone."""

    origin: Origin | None
    shaping: Mapping[str, Any] | None


@dataclass(frozen=True)
class Permuted:
    """The weights of another pretraining, with the values of each tensor permuted."""

    start: "PretrainUnit"
    seed: int


@dataclass(frozen=True)
class Learned:
    """Weights trained here on pseudo-labels. control: how the labels are destroyed, if at all. start: None for random weights."""

    labels: CorpusUnit | ReadyLabels
    control: Control | None = None
    start: "PretrainUnit | None" = None


@dataclass(frozen=True)
class Reconstructed:
    """Weights trained here on images without labels, of which parts are masked. start: None for random weights."""

    part: PoolPart
    simmim: SimMIM
    start: "PretrainUnit | None" = None


Weights = FromImageNet | FromCheckpoint | Permuted | Learned | Reconstructed


@dataclass(frozen=True, eq=False)
class PretrainUnit(UnitBase):
    """The weights of an encoder: trained on a corpus or on images alone, loaded, or permuted."""

    kind = "pretrain"
    telling = ("certificate.json",)
    card: SourceCard
    protocol: Protocol
    backbone: BackboneSpec
    weights: Weights
    replicate: int | None = None

    @property
    def needs(self) -> "tuple[Unit, ...]":
        """The pretraining it starts from, and its corpus if that is made here."""
        match self.weights:
            case Permuted(start):
                return (start,)
            case Learned(labels, _, start):
                corpus = (labels,) if isinstance(labels, CorpusUnit) else ()
                return (*((start,) if start else ()), *corpus)
            case Reconstructed(start=start) if start is not None:
                return (start,)
        return ()

    @property
    def origin(self) -> Origin | None:
        """The origin of weights that are not made here, else None."""
        return self.weights.origin if isinstance(self.weights, FromImageNet | FromCheckpoint) else None

    @property
    def learner(self) -> "PretrainUnit | None":
        """This unit, or the one whose weights it permutes; None for loaded weights."""
        match self.weights:
            case Permuted(start):
                return start.learner
            case Learned() | Reconstructed():
                return self
        return None

    @property
    def steps(self) -> int:
        """Estimated optimiser steps on the images; with pretrain_epochs, held-out images reduce the actual number."""
        match self.weights:
            case Learned(labels=images) | Reconstructed(part=images):
                return self.protocol.steps_on(images.images)
        return 0

    def _shaping(self) -> Json:
        own: Json
        match self.weights:
            case FromImageNet(origin):
                own = {"origin": origin.name if origin else None}
            case FromCheckpoint(_, shaping):
                own = {"checkpoint": shaping}
            case Permuted(_, seed):
                own = {"permuted": seed}
            case Learned(labels, control, _):
                own = labels.shaping() if isinstance(labels, ReadyLabels) else {}
                own |= {control.kind: control.seed} if control else {}
            case Reconstructed(part, simmim, _):
                own = part.shaping() | {"simmim": simmim.model_dump(mode="json")}
        trained = {} if self.origin else {"protocol": self.protocol.pretraining_hash}
        return own | {"backbone": backbone_hash(self.backbone)} | trained

    def __str__(self) -> str:
        return f"pretrain{_number(self)} {self.card.name} x {self.backbone.name}"


@dataclass(frozen=True, eq=False)
class _OnTarget(UnitBase):
    """A training on the target. pretrained: the unit of the encoder's weights; None for random ones."""

    cell: Cell
    card: SourceCard
    backbone: BackboneSpec
    protocol: Protocol
    target_hash: str
    pretrained: PretrainUnit | None

    @property
    def learner(self) -> PretrainUnit | None:
        """The learner of its initial weights."""
        return self.pretrained.learner if self.pretrained else None

    @property
    def steps(self) -> int:
        """Optimiser steps on the target; `long` sources add the steps of a pretraining."""
        return self.protocol.finetune_steps + ((self.protocol.pretrain_steps or 0) if self.card.long else 0)

    def _shaping(self) -> Json:
        return {
            "backbone": backbone_hash(self.backbone),
            "card": self.card.identity_hash,
            "target": self.target_hash,
            "protocol": self.protocol.identity_hash,
            "train_frac": self.cell.train_frac,
        }

    def __str__(self) -> str:
        return f"{self.kind}{_number(self)} {self.cell}"


@dataclass(frozen=True, eq=False)
class TuneUnit(_OnTarget):
    """The tuning of a cell's schedule on the validation split."""

    kind = "tune"
    telling = ("tune.json", "trials.jsonl")
    replicate = None

    @property
    def needs(self) -> "tuple[Unit, ...]":
        """The pretraining of the first replicate."""
        return (self.pretrained,) if self.pretrained else ()


@dataclass(frozen=True, eq=False)
class FinalUnit(_OnTarget):
    """A replicate of a cell: finetuned with the cell's schedule, scored on the test split. tuned: None for the default schedule."""

    kind = "final"
    tuned: TuneUnit | None
    replicate: int

    @property
    def needs(self) -> "tuple[Unit, ...]":
        """Its own pretraining, and the tuning of its cell, if it is tuned."""
        return (*((self.pretrained,) if self.pretrained else ()), *((self.tuned,) if self.tuned else ()))

    def _shaping(self) -> Json:
        return super()._shaping() | ({} if self.tuned else {"schedule": self.cell.schedule})


Unit = CorpusUnit | PretrainUnit | TuneUnit | FinalUnit


def all_needed(unit: Unit) -> Iterator[Unit]:
    """Yield all units that a unit needs, directly or not, each once and after its own needs."""
    seen: set[str] = set()

    def walk(above: Unit) -> Iterator[Unit]:
        for need in above.needs:
            if need.fingerprint not in seen:
                yield from walk(need)
                seen.add(need.fingerprint)
                yield need

    yield from walk(unit)


@cache
def backbone_hash(spec: BackboneSpec) -> str:
    """Hash the parts of a backbone that affect results. `name` is one: backbones may share parts but not a row on the board."""
    shaping = {name: value for name, value in asdict(spec).items() if name not in ("hub", "wheel", "for_tests")}
    return fingerprint(shaping)


def _number(unit: UnitBase) -> str:
    return "" if unit.replicate is None else f" r{unit.replicate}"
