"""Faults of a bundle: a code for programs and a text for people."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Code = Literal[
    "bundle.files",  # changed after packing
    "bundle.verdict",  # an earlier, more thorough check failed
    "bundle.empty",  # no successful run
    "bundle.unforeseen",  # a check raised an exception
    "card.unusable",
    "card.path",
    "record.unreadable",
    "record.source",
    "record.unknown_name",
    "record.field",  # differs from what card, protocol and target imply
    "record.leak",
    "record.text",
    "record.time",
    "record.precision",
    "record.device",
    "record.pretraining",
    "settings.protocol",
    "settings.card",
    "settings.backbone",
    "identity.missing",
    "identity.unreadable",
    "identity.field",
    "identity.version",
    "identity.extra",
    "identity.needs",
    "identity.fingerprint",
    "budget.trials",
    "budget.proposals",
    "budget.choice",
    "budget.steps",
    "budget.loss",
    "budget.threads",
    "budget.pretraining",
    "certificate.unexpected",
    "certificate.missing",
    "certificate.stages",
    "certificate.refused",
    "certificate.other_weights",
    "certificate.normalisation",
    "evidence.unreadable",
    "evidence.range",
    "evidence.classes",
    "evidence.absent_class",
    "evidence.perfect",
    "evidence.scores",
    "evidence.bounds",
    "evidence.split",  # of no test split of the record, or of another one
    "images.no_manifest",
    "images.target",
    "images.splits",  # the record's test splits are not those of the target
    "images.missing",
    "images.unknown",
    "images.groups",
    "images.pixels",
    "cell.identities",
    "cell.replicates",
    "cell.schedules",
    "finding.unreadable",
    "finding.misplaced",
    "finding.unlike",
    "copy.errors",
    "copy.network",
    "copy.weights",
    "network.unreadable",
    "network.other",
    "network.predictions",
    "weights.other_file",
    "reproduced.identity",
    "reproduced.failed",
    "reproduced.scores",
]


@dataclass(frozen=True)
class Fault:
    """One fault."""

    code: Code
    text: str

    def at(self, where: object) -> "Fault":
        """Return the fault with its location in front."""
        return replace(self, text=f"{where}: {self.text}")

    def __str__(self) -> str:
        return self.text


def texts(faults: Iterable[Fault]) -> list[str]:
    """Texts of faults, for people and the verdict."""
    return list(map(str, faults))
