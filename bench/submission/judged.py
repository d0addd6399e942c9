"""The result of checking a bundle; each check adds to it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from backbones.registry import known_backbone
from backbones.spec import BackboneSpec
from bench.plan.saved_plans import card_of
from bench.submission.copies import Place
from bench.submission.faults import Fault
from bench.targets.card import TargetCard
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog, collect
from results import bundle
from results.record import RunRecord


@dataclass
class Judged:
    """A bundle, or a plain store of shipped sources (`name` is None), with its faults and notes. No `faults`: it passed."""

    folder: Path
    runs: Path
    name: str | None
    faults: list[Fault]
    records: list[RunRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)  # stores to compare with
    trusted: Collection[str] = ()  # backbones whose code the reviewer has and trusts

    @cached_property
    def cards(self) -> Mapping[str, SourceCard]:
        """The shipped cards and the bundle's own.

        Raises:
            FileError: the bundle's card is invalid, or has a shipped source's name.
        """
        return catalog() if self.name is None else collect([self.folder / bundle.CARD], catalog())

    def target_of(self, record: RunRecord) -> TargetCard:
        """The card of a run's target: shipped, or of the bundle or store.

        Raises:
            BenchError: there is none, or it cannot be read.
        """
        return card_of(record.target, record.target_hash, self.runs)

    def backbone_of(self, record: RunRecord) -> BackboneSpec:
        """The backbone of a run. Code that the reviewer has not named is not imported.

        Raises:
            KeyError: it is unknown. BackboneError: it cannot be used, or is code of someone else.
        """
        return known_backbone(record.backbone, self.trusted)

    @property
    def measured(self) -> list[RunRecord]:
        """Successful runs, ordered by fingerprint."""
        return sorted((record for record in self.records if record.status == "ok"), key=lambda record: record.run)

    @property
    def brings_checkpoints(self) -> bool:
        """Whether its card names files of weights."""
        return self.name is not None and not self.faults and bool(self.cards[self.name].checkpoints)
