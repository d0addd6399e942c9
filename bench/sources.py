"""The units of a cell: which corpus, which pretraining, which runs a source asks for, and what stands in their way."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones import imagenet
from backbones.spec import BackboneSpec
from bench import BenchError, checkpoints
from bench.spec import Cell, Protocol
from bench.units import Kind, Unit
from pretrain_sources import teachers
from pretrain_sources.card import SourceCard
from pretrain_sources.corpus import Corpus, CorpusError, check_corpus, read_manifest
from pretrain_sources.pool import HasContent, Pool, PoolError, choose, evenly, images_hash
from results.store import Store


@dataclass(frozen=True)
class _Labels:
    """Pseudo-labels as far as they shape what is learned from them."""

    inputs: Mapping[str, Any]
    images: int


class Sources:
    """Makes the units of cells. What a card stands on (pool, checkpoint, corpus) is looked at once."""

    def __init__(
        self,
        cards: Mapping[str, SourceCard],
        protocol: Protocol,
        target_hash: str,
        pool: Pool | None,
        weights: Path,
        store: Store,
    ) -> None:
        self._cards, self._protocol, self._target_hash = cards, protocol, target_hash
        self._pool, self._weights, self._store = pool, weights, store
        self._known: dict[str, _Labels] = {}  # by card name
        self._made: dict[tuple[str, str, int], list[Unit]] = {}
        self._too_small: dict[str, str] = {}  # by card name: why its subset cannot be drawn

    def finals(self, cell: Cell, backbone: BackboneSpec) -> list[Unit]:
        """The runs of one cell, one a replicate; what else has to be done stands in their `needs`.

        Raises:
            BenchError: a ready-made corpus or a checkpoint cannot be used.
        """
        card = self._cards[cell.source]
        first = self._pretrained(cell, backbone, card, 0)  # tuning shares the pretraining of the first replicate
        tuned = self._unit("tune", cell, backbone, card, first)
        finals = []
        for replicate in range(self._protocol.replicates):
            needs = [*self._pretrained(cell, backbone, card, replicate), tuned]
            finals.append(self._unit("final", cell, backbone, card, needs, replicate=replicate))
        return finals

    def obstacle(self, unit: Unit) -> str | None:
        """Why this unit cannot be done here and now, and what to do; or None."""
        if unit.kind == "pretrain" and "checkpoint" in unit.inputs:
            return checkpoints.obstacle(unit.card, unit.backbone.name, self._weights)
        if unit.kind == "pretrain" and "origin" in unit.inputs:
            return imagenet.obstacle(unit.backbone, unit.origin, self._weights)
        if unit.card.name in self._too_small:
            return self._too_small[unit.card.name]
        if unit.kind == "corpus" and unit.card.recipe is not None:
            if self._pool is None:
                return f"{unit.cell.target} has no unlabelled images: name a folder with --pool DIR"
            return teachers.obstacle(unit.card.recipe.teacher, self._weights)
        return None

    def _unit(
        self,
        kind: Kind,
        cell: Cell,
        backbone: BackboneSpec,
        card: SourceCard,
        needs: Iterable[Unit] = (),
        **fields: Any,  # noqa: ANN401
    ) -> Unit:
        return Unit(kind, cell, card, backbone, self._protocol, self._target_hash, needs=tuple(needs), **fields)

    def _pretrained(self, cell: Cell, backbone: BackboneSpec, card: SourceCard, replicate: int) -> list[Unit]:
        """The pretraining that a source brings: none for random weights, one for all replicates of a fixed checkpoint.

        Cells that differ in nothing but the train fraction share it.
        """
        key = (backbone.name, card.name, replicate)
        if key not in self._made:
            self._made[key] = self._make_pretrained(cell, backbone, card, replicate)
        return self._made[key]

    def _make_pretrained(self, cell: Cell, backbone: BackboneSpec, card: SourceCard, replicate: int) -> list[Unit]:
        start = (
            []
            if card.start in ("random", card.name)
            else self._pretrained(cell, backbone, self._cards[card.start], replicate)
        )
        unit = functools.partial(self._unit, "pretrain", cell, backbone, card)
        if card.control is not None and card.control.kind == "permuted":
            return [unit(start, inputs={"permuted": card.control.seed}, replicate=replicate)]
        if card.pretrains:
            labels = self._known.setdefault(card.name, self._known.get(card.name) or self._look_up(card))
            control: dict[str, Any] = {card.control.kind: card.control.seed} if card.control else {}
            if card.recipe is None:
                inputs = {**labels.inputs, **control}
                return [unit(start, inputs=inputs, images=labels.images, replicate=replicate)]
            corpus = self._unit("corpus", cell, backbone, card, inputs=labels.inputs, images=labels.images)
            return [unit([*start, corpus], inputs=control, images=labels.images, replicate=replicate)]
        if card.checkpoints:
            origin, inputs = checkpoints.identify(card, backbone.name, self._weights)
            return [unit(inputs=inputs, origin=origin)]
        if card.is_random:
            return []
        origin = imagenet.locate(backbone, self._weights)
        return [unit(inputs={"origin": origin.name if origin else None}, origin=origin)]

    def _look_up(self, card: SourceCard) -> _Labels:
        members: tuple[HasContent, ...] = ()
        try:
            if card.corpus is not None:
                cache = self._store.cache_file("corpora.json")
                corpus, _ = check_corpus(card.corpus.path, num_classes=card.corpus.num_classes, cache=cache)
                chosen = evenly(choose(corpus.images, card.subset), self._protocol.max_frames)
                made = read_manifest(card.corpus.path)
                by = {} if made is None else {"teacher": made.teacher}
                return _Labels({"corpus": Corpus(corpus.num_classes, chosen).content_hash, **by}, len(chosen))
            assert card.recipe is not None
            teacher = teachers.identity(card.recipe.teacher, self._weights)
            if self._pool is not None:
                members = evenly(choose(self._pool.images, card.subset), self._protocol.max_frames)
        except PoolError as error:  # too small for this subset: the other sources can still be run
            self._too_small[card.name] = str(error)
            return _Labels({"cannot be drawn": str(error)}, 0)
        except (CorpusError, teachers.TeacherError) as error:
            raise BenchError(f"source '{card.name}': {error}") from error
        inputs = {"teacher": teacher, "labelling": card.recipe.labelling(), "images": images_hash(members)}
        return _Labels(inputs, len(members))
