"""Records from units: the fields that are known before a run starts, and the records of runs that did not get far."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from bench.targets import TARGETS
from bench.targets.mapping import map_spec
from bench.units import RESULT_VERSION, Unit
from results.record import MOST_CHARACTERS, RunRecord, Status


def now() -> str:
    """UTC time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def known_fields(unit: Unit) -> dict[str, Any]:
    """The fields of a final unit's record that follow from the unit alone; the others null."""
    spec = map_spec(TARGETS[unit.cell.target], unit.protocol.class_map)
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
        "replicate": unit.replicate,
        "replicates": unit.protocol.replicates,
        "ranked": unit.protocol.ranked,
        "selected_on_test": unit.protocol.select_on == "test",
        "leak": unit.leak,
        "finetune_steps": unit.finetune_steps,
        "weights": unit.weights,
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


def unfinished(unit: Unit, status: Status, reason: str) -> RunRecord:
    """The record of a final that failed or was skipped."""
    cut = reason if len(reason) <= MOST_CHARACTERS else f"{reason[: MOST_CHARACTERS - 4]} ..."
    return RunRecord(**known_fields(unit) | {"status": status, "reason": cut, "finished": now()})
