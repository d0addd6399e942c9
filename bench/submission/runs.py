"""Everything that can be wrong with one run of a bundle: against card, protocol, its own identity, its evidence and the images."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from backbones.spec import Refused, find_backbone
from bench import BenchError
from bench.spec import Protocol, load_protocol
from bench.targets import TARGETS
from bench.targets.manifest import Manifest, Truth, read_manifest, shipped_manifest, truth
from bench.targets.mapping import map_spec
from bench.units import RESULT_VERSION, backbone_hash
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import Cards, UnknownSource, find_source
from pretrain_sources.identity import fingerprint
from results import bundle, metrics
from results.evidence import Evidence
from results.record import RunRecord
from results.store import Store, StoreError

CLOSE = 1e-9  # scores recomputed by another numpy may differ in the last digits
SMOKE = "~smoke"


def run_faults(
    record: RunRecord,
    store: Store,
    name: str | None,
    cards: Cards,
    manifests: Mapping[str, Manifest],
    proofs: dict[str, Evidence],
) -> Iterator[str]:
    """Everything that is wrong with one run of a bundle of `name`; its evidence goes into `proofs`, by run."""
    if name is not None and not bundle.is_of(record.source, name):
        yield f"it is a run of '{record.source}', and the bundle is of '{name}'"
        return
    try:
        protocol = _protocol(record.protocol)
        card = find_source(record.source, cards)
        spec = find_backbone(record.backbone)
        if record.target not in TARGETS:
            raise BenchError(f"unknown target '{record.target}'")
        target = map_spec(TARGETS[record.target], protocol.class_map)
    except (BenchError, UnknownSource, KeyError, Refused) as error:
        yield str(error).strip("'")
        return
    yield from _settings_faults(record, protocol, card, asdict(spec))
    yield from _identity_faults(record, protocol, card, backbone_hash(spec))
    steps = protocol.finetune_steps + ((protocol.pretrain_steps or 0) if card.long else 0)
    expected = {
        "classes": list(target.classes),
        "label_note": target.label_note,
        "ranked": protocol.ranked,
        "selected_on_test": protocol.select_on == "test",
        "replicates": protocol.replicates,
        "finetune_steps": steps,
        "result_version": ", ".join(f"{kind} {version}" for kind, version in RESULT_VERSION.items()),
    }
    for name, value in expected.items():
        if (found := getattr(record, name)) != value:
            yield f"{name} is {found!r}, and under {protocol.name} it must be {value!r}"
    if record.target in card.training_data and record.leak is None:
        yield f"the card names {record.target} among what the source has seen, and the record says no word of it"
    if record.status != "ok":
        return
    folder = store.folder_of(record)
    yield from _budget_faults(record, protocol, folder, steps)
    yield from _certificate_faults(record, folder)
    try:
        evidence = proofs[record.run] = store.read_evidence(record)
    except (StoreError, ValueError) as error:
        yield str(error).replace(f"{store.root}/", "")
        return
    yield from _score_faults(record, evidence)
    manifest = manifests.get(record.target) or _shipped(record.target)
    if manifest is None:
        yield (
            f"no manifest of {record.target} ships, so its test images are not known here: make one from the images "
            f"with `bench data manifest {record.target}`, and name it with --manifest"
        )
        return
    if manifest.target_hash != record.target_hash:
        yield (
            f"target_hash is {record.target_hash[:12]}, that of the manifest {manifest.target_hash[:12]}: "
            f"it was scored on other files than {record.target}'s"
        )
        return
    yield from _image_faults(evidence, truth(manifest, protocol))


def _shipped(target: str) -> Manifest | None:
    path = shipped_manifest(target)
    return read_manifest(path) if path else None


def _protocol(name: str) -> Protocol:
    """The shipped protocol of this name: one that somebody has at home is not equal for all."""
    base = load_protocol(name.removesuffix(SMOKE)) if not name.endswith((".yaml", ".yml")) else None
    if base is None:
        raise BenchError(f"the protocol {name} does not ship")
    return base.smoke() if name.endswith(SMOKE) else base


def _settings_faults(
    record: RunRecord, protocol: Protocol, card: SourceCard, backbone: Mapping[str, Any]
) -> Iterator[str]:
    """What the record tells of card, backbone and protocol, against the card here, the row here, the shipped protocol."""
    told = record.settings
    try:
        theirs = Protocol.model_validate(told["protocol"]).identity()
    except (KeyError, ValueError, TypeError):
        theirs = {}
    if differing := [name for name, value in protocol.identity().items() if theirs.get(name) != value]:
        yield f"it was run under another {protocol.name} than the one that ships: {', '.join(differing)} differ"
    if told.get("card") != card.identity():
        yield f"the card in its settings is not that of '{card.name}' in {bundle.CARD}"
    mine = json.loads(json.dumps(backbone))
    if told.get("backbone") != mine:
        yield f"the backbone in its settings is not {record.backbone} as it is defined here"


def _identity_faults(record: RunRecord, protocol: Protocol, card: SourceCard, backbone: str) -> Iterator[str]:
    """Works the fingerprints out anew from what they are made of, and holds that against the rest of the record."""
    tree = record.settings.get("identity")
    if not isinstance(tree, dict):
        yield "its settings do not spell out its identity: run it again with this version"
        return
    try:
        run, cell = _fingerprints(tree)
    except (TypeError, ValueError, AttributeError, RecursionError):
        yield "the identity in its settings cannot be read"
        return
    if (run, cell) != (record.run, record.cell):
        yield "its fingerprint is not that of the identity in its settings: one of them was edited"
    expected = {
        "kind": "final",
        "version": RESULT_VERSION["final"],
        "replicate": record.replicate,
        "target": record.target_hash,
        "train_frac": record.train_frac,
        "protocol": protocol.identity_hash,
        "card": card.identity_hash,
        "backbone": backbone,
    }
    for name, value in expected.items():
        if tree.get(name) != value:
            yield f"its identity says {name} {tree.get(name)!r}, and it must be {value!r}"
    if record.protocol_hash != protocol.identity_hash:
        yield f"protocol_hash is not that of {protocol.name}"
    units = list(_spelled(tree))
    for unit in units:
        kind = unit.get("kind")
        if kind not in RESULT_VERSION or unit.get("version") != RESULT_VERSION[kind]:
            yield f"its {kind} was made by version {unit.get('version')} of that stage, which is another one here"
    needed = [unit.get("kind") for unit in tree.get("needs", ())]
    wanted = ["tune"] if card.is_random else ["pretrain", "tune"]
    if sorted(map(str, needed)) != wanted:
        yield f"it is made from {', '.join(map(str, needed)) or 'nothing'}, and a run of '{card.name}' from {', '.join(wanted)}"
    for unit in tree.get("needs", ()):
        if unit.get("kind") == "pretrain" and unit.get("replicate") not in (None, record.replicate):
            yield f"its pretraining is that of replicate {unit.get('replicate')}: a replicate is one draw of the whole pipeline"
    given = {one.sha256 for one in card.checkpoints}
    for unit in units:
        found = (unit.get("checkpoint") or {}).get("sha256") if card.checkpoints else None
        if found and None not in given and found not in given:
            yield "its checkpoint is not the file that the card names"


def _fingerprints(tree: Mapping[str, Any]) -> tuple[str, str]:
    """(fingerprint of a unit, that of its cell) from all that they are made of; as `bench.units.Unit` has them."""
    below = [_fingerprints(unit) for unit in tree.get("needs", ())]
    runs, cells = [run for run, _ in below], [cell for _, cell in below]
    own = {name: value for name, value in tree.items() if name != "replicate"}
    run = dict(tree) | ({"needs": runs} if "needs" in tree else {})
    return fingerprint(run), fingerprint(own | {"needs": cells})


def _spelled(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield tree
    for unit in tree.get("needs", ()):
        yield from _spelled(unit)


def _budget_faults(record: RunRecord, protocol: Protocol, folder: Path, steps: int) -> Iterator[str]:
    """Trials, candidates, the choice among them, and steps."""
    from bench import tune  # optuna takes its time

    assert record.tuning is not None
    assert record.provenance is not None
    told = record.tuning
    try:
        trials = tune.read_trials(folder / "trials.jsonl")
    except (TypeError, OSError):
        trials = []
    if not len(trials) == told.trials == protocol.trials:
        yield f"{len(trials)} trials in trials.jsonl, {told.trials} in the record, and {protocol.name} has {protocol.trials}"
    elif not _proposed(protocol, trials):
        yield f"its trials are not those that {protocol.name} proposes: every cell is to have the same"
    else:
        chosen, value = tune.best(trials)
        values = [trial.val_miou for trial in trials]
        same = (told.schedule, told.tuned_val_miou, told.default_val_miou) == (chosen.schedule, value, values[0])
        if not same or told.trial_val_mious != values:
            yield "its schedule is not the best of its trials, or their validation scores were edited"
    rows = _history(folder / "history.csv")
    if len(rows) != steps or [row[0] for row in rows] != list(range(1, steps + 1)):
        yield f"history.csv has {len(rows)} steps, and {protocol.name} has {steps}"
    elif not math.isclose(record.provenance.final_loss, _tail(rows), rel_tol=1e-4):
        yield "final_loss is not that of history.csv"
    if record.provenance.threads != protocol.threads:
        yield f"it was run with {record.provenance.threads} threads, and {protocol.name} has {protocol.threads}"
    learned = record.pretraining
    if learned is not None and learned.pretrain_steps != protocol.steps_on(learned.pretrain_images):
        wanted = protocol.steps_on(learned.pretrain_images)
        yield f"its pretraining took {learned.pretrain_steps} steps, and {protocol.name} has {wanted}"


def _proposed(protocol: Protocol, trials: Sequence[Any]) -> bool:
    """Whether these schedules are those of the protocol; past the shared candidates, whether they could be."""
    from bench import tune
    from bench.spec import Schedule

    shared = [protocol.default] if protocol.trials >= tune.TPE_FROM_TRIALS else tune.candidates(protocol)
    try:
        given = [Schedule.model_validate(trial.schedule) for trial in trials]
    except ValueError:
        return False
    alike = all(_alike(a, b) for a, b in zip(given, shared, strict=False))
    return alike and all(protocol.search.holds(schedule) for schedule in given)


def _alike(a: Any, b: Any) -> bool:  # noqa: ANN401 - two schedules
    ours, theirs = a.model_dump(), b.model_dump()
    return all(
        math.isclose(ours[name], theirs[name], rel_tol=CLOSE)
        if isinstance(ours[name], float)
        else ours[name] == theirs[name]
        for name in ours
    )


def _history(path: Path) -> list[tuple[int, float]]:
    try:
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        return [(int(row["step"]), float(row["loss"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _tail(rows: Sequence[tuple[int, float]]) -> float:
    losses = [loss for _, loss in rows[-max(1, len(rows) // 10) :]]
    return sum(losses) / len(losses)


def _certificate_faults(record: RunRecord, folder: Path) -> Iterator[str]:
    path = folder / "certificate.json"
    if record.weights is None:
        if path.is_file() or record.weights_sha256 is not None:
            yield "its weights are random, and yet it has a certificate of weights"
        return
    try:
        told = json.loads(path.read_bytes())
        passed = (
            told["passed"] is True and told["problems"] == [] and told["tensors_matched"] == told["tensors_expected"]
        )
        same = told["sha256"] == record.weights_sha256
    except (OSError, ValueError, KeyError, TypeError):
        yield "certificate.json is missing or cannot be read: whether its weights were loaded is not known"
        return
    if not passed:
        yield "its certificate says that the weights were refused, or not all loaded"
    if not same:
        yield "its certificate is that of other weights"


def _score_faults(record: RunRecord, evidence: Evidence) -> Iterator[str]:
    """The record's scores against those that the evidence gives."""
    assert record.scores is not None
    values = evidence.weighted_f
    defined = values[~np.isnan(values)]
    if (evidence.confusion < 0).any() or (defined < -CLOSE).any() or (defined > 1 + CLOSE).any():
        yield "its evidence holds counts below 0, or weighted F-measures outside of 0..1"
        return
    if evidence.confusion.ndim != 3 or evidence.confusion.shape[1] != len(record.classes):
        yield f"its evidence is of {evidence.confusion.shape[-1]} classes, and the record has {len(record.classes)}"
        return
    present = evidence.confusion.sum(2) > 0
    if (present == np.isnan(values)).any():
        yield "its evidence has a weighted F-measure where the class is absent, or none where it is present"
        return
    hit = np.diagonal(evidence.confusion, axis1=1, axis2=2)
    perfect = (hit == evidence.confusion.sum(2)) & (hit == evidence.confusion.sum(1))
    if (perfect[present] != np.isclose(values[present], 1, atol=1e-12)).any():
        yield "its confusion matrices and its weighted F-measures are not of the same predictions: only one of them is perfect"
    try:
        ours = metrics.scores(evidence).model_dump()
    except ValueError as error:
        yield str(error)
        return
    theirs = record.scores.model_dump()
    if edited := [name for name in ours if not _equal(ours[name], theirs[name])]:
        yield "; ".join(
            f"{name} is {_told(theirs[name])}, and its evidence gives {_told(ours[name])}" for name in edited
        )


def _equal(a: Any, b: Any) -> bool:  # noqa: ANN401 - numbers, None, or lists of them
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)


def _told(value: Any) -> str:  # noqa: ANN401
    return "[...]" if isinstance(value, list) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _image_faults(evidence: Evidence, known: Truth) -> Iterator[str]:
    """The evidence's images against those of the manifest."""
    ids = evidence.image_ids.tolist()
    if missing := sorted(set(known.ids) - set(ids)):
        yield f"{len(missing)} of {len(known.ids)} test images are missing, the first {missing[0]}"
    if strange := sorted(set(ids) - set(known.ids)):
        yield f"{len(strange)} images are none of the test images, the first {strange[0]}"
    if missing or strange:
        return
    order = [ids.index(name) for name in known.ids]
    if evidence.groups[order].tolist() != known.groups:
        yield "its groups of images are not those of the manifest"
    differing = (evidence.confusion[order].sum(2) != known.pixels).any(1)
    if differing.any():
        first = known.ids[int(differing.argmax())]
        yield f"the pixels of each class differ from the manifest in {differing.sum()} images, the first {first}"
