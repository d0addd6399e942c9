"""The units of a cell: the corpus, pretrainings and runs that a source requires.

The inputs of cards (pool, checkpoint, corpus) come from `Inputs`: local files before a run, or a record after one.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol as Interface

from backbones import imagenet
from backbones.spec import BackboneSpec
from bench import BenchError
from bench.plan import card_weights
from bench.plan.pool_part import PoolPart
from bench.plan.units import (
    CorpusUnit,
    FinalUnit,
    FromCheckpoint,
    FromImageNet,
    Learned,
    Permuted,
    PretrainUnit,
    ReadyLabels,
    Reconstructed,
    TuneUnit,
    Unit,
)
from bench.spec import Cell, Protocol
from pretrain_sources import teachers
from pretrain_sources.card import SourceCard
from pretrain_sources.corpus import Corpus, CorpusError, check_corpus, read_manifest
from pretrain_sources.pool import Pool, PoolError, PoolImage, choose, evenly, images_hash
from results.schedule_names import TUNED
from results.store import Store


class Inputs(Interface):
    """The inputs of cards, as far as they affect results."""

    def labels(self, card: SourceCard, protocol: Protocol) -> CorpusUnit | ReadyLabels:
        """Return the pseudo-labels of a card with a recipe or a ready-made corpus."""

    def part(self, card: SourceCard, protocol: Protocol) -> PoolPart:
        """Return the images of the pool that a card without labels learns from."""

    def checkpoint(self, card: SourceCard, backbone: str) -> FromCheckpoint:
        """Return the checkpoint of a card for this backbone."""

    def imagenet(self, card: SourceCard, backbone: BackboneSpec) -> FromImageNet:
        """Return the ImageNet weights of a backbone."""


class Graph:
    """Builds the units of cells; cells share units."""

    def __init__(self, cards: Mapping[str, SourceCard], protocol: Protocol, target_hash: str, inputs: Inputs) -> None:
        self._cards, self._protocol, self._target_hash, self._inputs = cards, protocol, target_hash, inputs
        self._labels: dict[str, CorpusUnit | ReadyLabels] = {}  # by card name
        self._parts: dict[str, PoolPart] = {}
        self._made: dict[tuple[str, str, int], PretrainUnit | None] = {}

    def finals(self, cell: Cell, backbone: BackboneSpec) -> list[FinalUnit]:
        """Return the runs of a cell, one for each replicate; their `needs` hold the other units.

        Raises:
            BenchError: a ready-made corpus or a checkpoint cannot be used.
        """
        return [self.final(cell, backbone, replicate) for replicate in range(self._protocol.replicates)]

    def final(self, cell: Cell, backbone: BackboneSpec, replicate: int) -> FinalUnit:
        """Return one run of a cell. Tuning, if the cell is tuned, shares the pretraining of the first replicate."""
        card = self._cards[cell.source]
        shared = (cell, card, backbone, self._protocol, self._target_hash)
        tuned = TuneUnit(*shared, self._pretrained(backbone, card, 0)) if cell.schedule == TUNED else None
        return FinalUnit(*shared, self._pretrained(backbone, card, replicate), tuned, replicate)

    def _pretrained(self, backbone: BackboneSpec, card: SourceCard, replicate: int) -> PretrainUnit | None:
        """Return the pretraining of a source: None for random weights; a fixed checkpoint has one for all replicates.

        Cells that differ only in the train fraction share it.
        """
        key = (backbone.name, card.name, replicate)
        if key not in self._made:
            self._made[key] = self._make_pretrained(backbone, card, replicate)
        return self._made[key]

    def _make_pretrained(self, backbone: BackboneSpec, card: SourceCard, replicate: int) -> PretrainUnit | None:
        if card.is_random:
            return None
        own = (card, self._protocol, backbone)
        if card.checkpoints:
            return PretrainUnit(*own, self._inputs.checkpoint(card, backbone.name))
        start = None
        if card.start not in ("random", card.name):
            start = self._pretrained(backbone, self._cards[card.start], replicate)
        if card.control is not None and card.control.kind == "permuted":
            assert start is not None
            return PretrainUnit(*own, Permuted(start, card.control.seed), replicate)
        if card.simmim is not None:
            if card.name not in self._parts:
                self._parts[card.name] = self._inputs.part(card, self._protocol)
            return PretrainUnit(*own, Reconstructed(self._parts[card.name], card.simmim, start), replicate)
        if card.has_labels:
            if card.name not in self._labels:
                self._labels[card.name] = self._inputs.labels(card, self._protocol)
            return PretrainUnit(*own, Learned(self._labels[card.name], card.control, start), replicate)
        return PretrainUnit(*own, self._inputs.imagenet(card, backbone))


class InputsHere:
    """Inputs from local files."""

    def __init__(self, target: str, pool: Pool | None, weights: Path, store: Store) -> None:
        self._target, self._pool, self._weights, self._store = target, pool, weights, store

    def labels(self, card: SourceCard, protocol: Protocol) -> CorpusUnit | ReadyLabels:
        """Count and hash the images. A subset that cannot be drawn is an obstacle, so that other sources still run.

        Raises:
            BenchError: a ready-made corpus, or the checkpoint of a teacher, cannot be used.
        """
        try:
            return self._ready(card, protocol) if card.recipe is None else self._planned(card, protocol)
        except (CorpusError, teachers.TeacherError) as error:
            key = "recipe.teacher" if card.corpus is None else "corpus.path"
            raise BenchError(f"source '{card.name}', `{key}` of its card: {error}") from error

    def part(self, card: SourceCard, protocol: Protocol) -> PoolPart:
        """Count and hash the images."""
        try:
            members = self._members(card, protocol)
        except PoolError as error:
            return PoolPart(images_hash(()), 0, str(error))
        return PoolPart(images_hash(members), len(members))

    def checkpoint(self, card: SourceCard, backbone: str) -> FromCheckpoint:
        """Identify the file."""
        return FromCheckpoint(*card_weights.identify(card, backbone, self._weights))

    def imagenet(self, card: SourceCard, backbone: BackboneSpec) -> FromImageNet:
        """Locate the weights."""
        return FromImageNet(imagenet.locate(backbone, self._weights))

    def obstacle(self, unit: Unit) -> str | None:
        """Return why this unit cannot run here and what to do, or None."""
        if isinstance(unit, CorpusUnit):
            return unit.undrawable or self._corpus_obstacle(unit)
        if not isinstance(unit, PretrainUnit):
            return None
        match unit.weights:
            case FromCheckpoint():
                return card_weights.obstacle(unit.card, unit.backbone.name, self._weights)
            case FromImageNet(origin):
                return imagenet.obstacle(unit.backbone, origin, self._weights)
            case Learned(labels):
                return labels.undrawable
            case Reconstructed(part):
                return part.undrawable or self._pool_obstacle()
        return None

    def _ready(self, card: SourceCard, protocol: Protocol) -> ReadyLabels:
        assert card.corpus is not None
        cache = self._store.cache_file("corpora.json")
        corpus, _ = check_corpus(card.corpus.path, num_classes=card.corpus.num_classes, cache=cache)
        try:
            chosen = evenly(choose(corpus.images, card.subset), protocol.max_frames)
        except PoolError as error:
            return ReadyLabels("", 0, undrawable=str(error))
        made = read_manifest(card.corpus.path)
        return ReadyLabels(
            Corpus(corpus.num_classes, chosen).content_hash, len(chosen), None if made is None else made.teacher
        )

    def _planned(self, card: SourceCard, protocol: Protocol) -> CorpusUnit:
        assert card.recipe is not None
        unit = CorpusUnit(card, protocol, teachers.identity(card.recipe.teacher, self._weights), images_hash(()), 0)
        try:
            members = self._members(card, protocol)
        except PoolError as error:
            return replace(unit, undrawable=str(error))
        return replace(unit, images_hash=images_hash(members), images=len(members))

    def _members(self, card: SourceCard, protocol: Protocol) -> tuple[PoolImage, ...]:
        """Return the images of the pool that a card uses; none without a pool.

        Raises:
            PoolError: its subset cannot be drawn.
        """
        return () if self._pool is None else evenly(choose(self._pool.images, card.subset), protocol.max_frames)

    def _corpus_obstacle(self, unit: CorpusUnit) -> str | None:
        assert unit.card.recipe is not None
        return self._pool_obstacle() or teachers.obstacle(unit.card.recipe.teacher, self._weights)

    def _pool_obstacle(self) -> str | None:
        if self._pool is not None:
            return None
        return f"{self._target} has no unlabelled images: name a folder with --pool DIR"
