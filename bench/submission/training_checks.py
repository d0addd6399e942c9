"""Check the training of a run: trials, choice and steps against the protocol, and the certificate of its initial weights."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.encoder_sizes import encoder_sizes
from backbones.spec import BackboneSpec
from bench import DivergedError
from bench.plan.candidates import candidates
from bench.plan.records import final_loss
from bench.plan.trials import Trial, read_trials, tuning_of
from bench.plan.unit_folder import TRIALS_FILE
from bench.plan.units import FinalUnit
from bench.spec import Protocol
from bench.spec.parts import Schedule
from bench.submission.faults import Fault
from results.record import RunRecord
from results.schedule_names import TPE_FROM_TRIALS
from results.tuning import Tuning
from safe_io.files import MOST_TEXT_BYTES, read_regular

CLOSE = 1e-9  # another numpy version may differ in the last digits


def training_faults(record: RunRecord, final: FinalUnit, folder: Path) -> Iterator[Fault]:
    """Check how a successful run was tuned, trained and initialised."""
    yield from _trial_faults(record, final, folder)
    yield from _step_faults(record, final, folder)
    path = folder / "certificate.json"
    if final.pretrained is not None:
        yield from _certificate_faults(record, final.backbone, path)
    elif path.is_file() or record.weights_sha256 is not None:
        yield Fault(
            "certificate.unexpected", "its initial weights are random, but it has a certificate of loaded weights"
        )


def _trial_faults(record: RunRecord, final: FinalUnit, folder: Path) -> Iterator[Fault]:
    """Check the trials and the choice among them; the default schedule has none."""
    assert record.tuning is not None
    tuning, protocol = record.tuning, final.protocol
    if final.tuned is None:
        if tuning.schedule != protocol.default.model_dump() or tuning.trials or (folder / TRIALS_FILE).exists():
            why = f"a run with the default schedule must have that of {protocol.name}, and no trials"
            yield Fault("budget.choice", why)
        return
    try:
        trials = read_trials(folder / TRIALS_FILE)
    except (TypeError, OSError, RecursionError):
        trials = []
    if not len(trials) == tuning.trials == protocol.trials:
        why = f"{len(trials)} trials in trials.jsonl and {tuning.trials} in the record, but {protocol.name} has {protocol.trials}"
        yield Fault("budget.trials", why)
    elif not _proposed(protocol, trials):
        why = f"its trials are not those that {protocol.name} proposes for every cell"
        yield Fault("budget.proposals", why)
    elif not _is_summary(tuning, trials):
        why = "its schedule is not the best of its trials, or their validation scores were edited"
        yield Fault("budget.choice", why)
    elif not all(trial.follows_from(protocol.tune_replicates) for trial in trials):
        why = f"its trials are not the mean of {protocol.tune_replicates} trainings each, as {protocol.name} has them"
        yield Fault("budget.trials", why)


def _is_summary(tuning: Tuning, trials: list[Trial]) -> bool:
    """Whether a record's tuning follows from its trials."""
    try:
        return tuning == tuning_of(trials)
    except (ValueError, DivergedError):
        return False


def _proposed(protocol: Protocol, trials: Sequence[Trial]) -> bool:
    """Whether these are the protocol's shared candidates, followed by schedules within its search space."""
    shared = [protocol.default] if protocol.trials >= TPE_FROM_TRIALS else candidates(protocol)
    try:
        given = [Schedule.model_validate(trial.schedule) for trial in trials]
    except ValueError:
        return False
    alike = all(_alike(a, b) for a, b in zip(given, shared, strict=False))
    return alike and all(protocol.proposes(schedule) for schedule in given)


def _alike(a: Schedule, b: Schedule) -> bool:
    ours, theirs = a.model_dump(), b.model_dump()
    return all(
        math.isclose(ours[name], theirs[name], rel_tol=CLOSE)
        if isinstance(ours[name], float)
        else ours[name] == theirs[name]
        for name in ours
    )


def _step_faults(record: RunRecord, final: FinalUnit, folder: Path) -> Iterator[Fault]:
    """Check steps, threads and final loss of finetuning and pretraining."""
    assert record.provenance is not None
    protocol = final.protocol
    rows = _history(folder / "history.csv")
    if len(rows) != final.steps or [row[0] for row in rows] != list(range(1, final.steps + 1)):
        yield Fault("budget.steps", f"history.csv has {len(rows)} steps, but {protocol.name} has {final.steps}")
    elif not math.isclose(record.provenance.final_loss, final_loss([loss for _, loss in rows]), rel_tol=1e-4):
        yield Fault("budget.loss", "final_loss does not match history.csv")
    if record.provenance.threads != protocol.threads:
        why = f"run with {record.provenance.threads} threads, but {protocol.name} has {protocol.threads}"
        yield Fault("budget.threads", why)
    learned = record.pretraining
    if learned is not None and learned.pretrain_steps != (wanted := protocol.steps_on(learned.pretrain_images)):
        why = f"pretraining took {learned.pretrain_steps} steps, but {protocol.name} has {wanted}"
        yield Fault("budget.pretraining", why)


def _history(path: Path) -> list[tuple[int, float]]:
    try:
        rows = csv.DictReader(io.StringIO(read_regular(path, MOST_TEXT_BYTES, links=False).decode()))
        return [(int(row["step"]), float(row["loss"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _certificate_faults(record: RunRecord, backbone: BackboneSpec, path: Path) -> Iterator[Fault]:
    """Check the certificate of strict loading: every tensor was loaded, from the recorded weights."""
    try:
        certificate = json.loads(read_regular(path, MOST_TEXT_BYTES, links=False))
        received = {name: (n["expected"], n["tensors"], n["values"]) for name, n in certificate["stages"].items()}
        count, loaded = certificate["tensors_expected"], _is_loaded(certificate)
        same = certificate["sha256"] == record.weights_sha256
        normalised = {"mean": certificate["mean"], "std": certificate["std"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        why = "certificate.json is missing or unreadable, so it is unknown whether its weights were loaded"
        yield Fault("certificate.missing", why)
        return
    sizes = encoder_sizes(backbone)
    tensors = sum(tensors for tensors, _ in sizes.values())
    if received != {name: (tensors, tensors, values) for name, (tensors, values) in sizes.items()}:
        why = f"certificate does not cover every tensor of {record.backbone}'s encoder, stage by stage"
        yield Fault("certificate.stages", why)
    elif count != tensors:
        yield Fault("certificate.stages", f"certificate expects {count} tensors, but its stages have {tensors}")
    if not loaded:
        yield Fault("certificate.refused", "certificate says that the weights were refused or not all loaded")
    if not same:
        yield Fault("certificate.other_weights", "certificate is of other weights than weights_sha256")
    if record.normalisation is None or not all(
        np.allclose(record.normalisation.get(name, []), value) for name, value in normalised.items()
    ):
        yield Fault("certificate.normalisation", "normalisation differs from its certificate")


def _is_loaded(certificate: Mapping[str, Any]) -> bool:
    """Whether a certificate says that every tensor was loaded and that this changed the network."""
    passed = certificate["passed"] is True and certificate["problems"] == []
    complete = certificate["tensors_matched"] == certificate["tensors_expected"] > 0
    distances = certificate["feature_distance"]
    changed = all(0 <= distance <= 1 for distance in distances) and distances[-1] > 0
    return bool(passed and complete and changed and certificate["share_equal_to_initial_frac"] < 1)
