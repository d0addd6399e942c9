"""Records of units: the fields known before a run starts, and the records of failed and skipped runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from bench.plan.unit import RESULT_VERSION
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
    Unit,
)
from bench.targets.card import TargetSpec
from pretrain_sources.card import SourceCard
from pretrain_sources.recipe import HAS_SEEN
from results.limits import MOST_CHARACTERS
from results.marks import ORACLE
from results.record import RunRecord, Status


def now() -> str:
    """Return the UTC time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def known_fields(unit: FinalUnit, spec: TargetSpec) -> dict[str, Any]:
    """Return the fields of a final's record that follow from the unit; the others are null. spec: with its classes mapped."""
    return {
        "run": unit.fingerprint,
        "cell": unit.cell_fingerprint,
        "target": unit.cell.target,
        "target_hash": unit.target_hash,
        "label_note": spec.label_note,
        "classes": list(spec.classes),
        "protocol": unit.protocol.name,
        "protocol_hash": unit.protocol.identity_hash,
        "result_version": ", ".join(f"{kind} {version}" for kind, version in RESULT_VERSION.items()),
        "source": unit.cell.source,
        "backbone": unit.cell.backbone,
        "train_frac": unit.cell.train_frac,
        "schedule_kind": unit.cell.schedule,
        "replicate": unit.replicate,
        "replicates": unit.protocol.replicates,
        "ranked": unit.protocol.ranked,
        "transfer": unit.protocol.transfer,
        "selected_on_test": unit.protocol.select_on == "test",
        "leak": leak_of(unit, unit.cell.target),
        "licence": None if unit.card.licence is None else shortened(unit.card.licence),
        "has_seen": seen_words(unit.card),
        "finetune_steps": unit.steps,
        "weights": described(unit.pretrained),
        "settings": {
            "card": unit.card.identity(),
            "backbone": asdict(unit.backbone),
            "protocol": unit.protocol.model_dump(mode="json"),
            "identity": unit.spelled_out(),
        },
        **dict.fromkeys(
            (
                *("reason", "normalisation", "weights_sha256", "scores", "tuning", "pretraining", "provenance"),
                *("evidence_sha256", "network_sha256"),
            )
        ),
    }


def seen_words(card: SourceCard) -> str:
    """Return what a card says that its source was trained on besides the pool."""
    if isinstance(card.training_data, str):
        return card.training_data
    return shortened("; ".join(card.training_data) or "nothing")


def shortened(text: str) -> str:
    """Return the text, or as much of it as a record may hold."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 4]} ..."


def final_loss(losses: Sequence[float]) -> float:
    """Return the mean loss over the last tenth of the steps."""
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def unfinished(unit: FinalUnit, spec: TargetSpec, status: Status, reason: str) -> RunRecord:
    """Make the record of a final that failed or was skipped."""
    changes = {"status": status, "reason": shortened(reason), "finished": now()}
    return RunRecord(**known_fields(unit, spec) | changes)


def described(unit: PretrainUnit | None) -> str | None:
    """Describe the origin of an encoder's weights; None for random ones."""
    if unit is None:
        return None
    match unit.weights:
        case FromImageNet(origin) | FromCheckpoint(origin) if origin is not None:
            return origin.name
        case Permuted(start):
            return f"permuted, from {described(start)}"
        case Learned(start=start) | Reconstructed(start=start) if start is not None:
            return f"pretrained here, {unit.card.name}, from {described(start)}"
    return f"pretrained here, {unit.card.name}"


def leak_of(unit: Unit, target: str) -> str | None:
    """Return why these weights are never ranked: what their card or teacher has seen of the target, or an oracle; else None."""
    if target in unit.card.training_data:
        return f"its card names {target} among what it has seen"
    teacher = _teacher(unit)
    if teacher.get("oracle"):
        return f"{ORACLE}people annotated its masks, so it is an upper bound for teachers and a control"
    seen = HAS_SEEN.get(str(teacher.get("model")), {}).get(target)
    return seen or next((leak for need in unit.needs if (leak := leak_of(need, target))), None)


def _teacher(unit: Unit) -> Mapping[str, Any]:
    if isinstance(unit, CorpusUnit):
        return unit.teacher
    ready = isinstance(unit, PretrainUnit) and isinstance(unit.weights, Learned) and unit.weights.labels
    return (ready.teacher or {}) if isinstance(ready, ReadyLabels) else {}
