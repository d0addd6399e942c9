"""What can be wrong with a bundle: a code to tell faults apart, and a text for people."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Code = Literal[
    "bundle.files",  # they are not what was packed
    "bundle.verdict",  # an earlier check of more found something
    "bundle.empty",  # no run ended well
    "bundle.unforeseen",  # something of it made a check fail
    "card.unusable",
    "card.path",
    "record.unreadable",
    "record.source",
    "record.unknown_name",
    "record.field",  # not what follows from card, protocol and target
    "record.leak",
    "record.text",
    "record.time",
    "record.precision",
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
    "images.no_manifest",
    "images.target",
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
    """One thing that is wrong."""

    code: Code
    text: str

    def at(self, where: object) -> "Fault":
        """The same, with where it is."""
        return replace(self, text=f"{where}: {self.text}")

    def __str__(self) -> str:
        return self.text


def texts(faults: Iterable[Fault]) -> list[str]:
    """For people and for the verdict."""
    return [fault.text for fault in faults]
