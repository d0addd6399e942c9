"""Everything that can be wrong with one run of a bundle: against card, protocol, its own identity, its evidence and the images."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from backbones.encoder_sizes import encoder_sizes
from backbones.spec import BACKBONES, BackboneSpec, Refused, find_backbone
from bench import BenchError, spec
from bench.matrix import lookup
from bench.spec import SMOKE, Protocol
from bench.submission.bounds import weighted_f_bounds
from bench.targets import TARGETS
from bench.targets.manifest import Manifest, Truth, read_manifest, shipped_manifest, truth
from bench.targets.mapping import map_spec
from bench.trials import best, read_trials
from bench.units import RESULT_VERSION, backbone_hash
from pretrain_sources import teachers
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import Cards, UnknownSource, closure, find_source
from pretrain_sources.identity import fingerprint
from pretrain_sources.recipe import HAS_SEEN
from pretrain_sources.yamlfile import read_yaml, suggestion
from results import bundle, metrics
from results.evidence import Evidence
from results.evidence_files import read_evidence
from results.record import RunRecord
from results.store import Store, StoreError
from safe_files import MOST_TEXT_BYTES, read_regular

CLOSE = 1e-9  # scores recomputed by another numpy may differ in the last digits


def run_faults(
    record: RunRecord,
    store: Store,
    name: str | None,
    cards: Cards,
    manifests: Mapping[str, Manifest],
) -> Iterator[str]:
    """Everything that is wrong with one run of a bundle of `name`."""
    if name is not None and not bundle.is_of(record.source, name):
        yield f"it is a run of '{record.source}', and the bundle is of '{name}'"
        return
    try:
        protocol = _protocol(record.protocol)
        card = find_source(record.source, cards)
        target = map_spec(lookup("target", record.target, TARGETS), protocol.class_map)
        backbone = find_backbone(record.backbone)
    except KeyError:
        yield f"unknown backbone {record.backbone!r}{suggestion(record.backbone, BACKBONES)}"
        return
    except (BenchError, UnknownSource, Refused, ValueError) as error:
        yield " ".join(str(error).split())
        return
    yield from _settings_faults(record, protocol, card, asdict(backbone))
    yield from _identity_faults(record, protocol, card, backbone_hash(backbone))
    yield from _unit_faults(record, closure([card], cards).values())
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
    for field, value in expected.items():
        if (found := getattr(record, field)) != value:
            yield f"{field} is {found!r}, and under {protocol.name} it must be {value!r}"
    yield from _told_faults(record, protocol, card)
    if record.status != "ok":
        return
    folder = store.folder_of(record)
    yield from _budget_faults(record, protocol, folder, steps)
    yield from _certificate_faults(record, card, backbone, folder)
    try:
        evidence = read_evidence(store, record)
    except (StoreError, ValueError) as error:
        yield str(error).replace(f"{store.root}/", "")
        return
    if wrong := list(_score_faults(record, evidence)):
        yield from wrong
        return
    manifest = manifests.get(record.target) or shipped(record.target)
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
    known = truth(manifest, protocol)
    if wrong := list(_image_faults(evidence, known)):
        yield from wrong
        return
    yield from _bound_faults(evidence, known, record.classes, protocol.beta_squared)


def shipped(target: str) -> Manifest | None:
    """The manifest that ships for a target, or None."""
    path = shipped_manifest(target)
    return read_manifest(path) if path else None


def _protocol(name: str) -> Protocol:
    """The shipped protocol of this name: one that somebody has at home is not equal for all."""
    base = read_yaml(lookup("protocol", name.removesuffix(SMOKE), spec.shipped("protocols")), Protocol)
    return base.smoke() if name.endswith(SMOKE) else base


def _told_faults(record: RunRecord, protocol: Protocol, card: SourceCard) -> Iterator[str]:
    """What a record tells of itself and no score depends on: it is shown, so it must at least be possible."""
    teachers = [str((unit.get("teacher") or {}).get("model")) for unit in _units(record)]
    leak = record.target in card.training_data or any(record.target in HAS_SEEN.get(name, {}) for name in teachers)
    if leak and record.leak is None:
        yield f"the source has seen {record.target}, by its card or its teacher, and the record says no word of it"
    if record.reason is not None and not record.reason.isprintable():
        yield "its reason holds characters that cannot be printed"
    times = {"finished": record.finished} | ({"started": record.provenance.started} if record.provenance else {})
    for name, told in times.items():
        try:
            late = datetime.fromisoformat(told).replace(tzinfo=UTC) > datetime.now(UTC) + timedelta(days=1)
        except ValueError:
            late = True
        if late:
            yield f"{name} is {told[:40]!r}, which is no time that has been"
    if record.status != "ok":
        return
    assert record.provenance is not None
    if protocol.device == "cpu" and record.provenance.precision != "fp32":
        yield f"precision is {record.provenance.precision!r}, and {protocol.name} runs on a CPU in fp32"
    trained = any("corpus" in (unit.get("kind"), *unit) for unit in _units(record))
    if _units(record) and trained != (record.pretraining is not None):
        yield f"'{card.name}' has {'a' if trained else 'no'} pretraining on a corpus, and the record says otherwise"


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
    for unit in (tree, *(each for each in tree.get("needs", ()) if each.get("kind") == "tune")):
        own = expected | (
            {"kind": "tune", "version": RESULT_VERSION["tune"], "replicate": None} if unit is not tree else {}
        )
        for name, value in own.items():
            if unit.get(name) != value:
                yield f"its identity says {name} {unit.get(name)!r} of its {own['kind']}, and it must be {value!r}"
    if record.protocol_hash != protocol.identity_hash:
        yield f"protocol_hash is not that of {protocol.name}"
    for unit in _units(record):
        kind = unit.get("kind")
        if kind not in RESULT_VERSION or unit.get("version") != RESULT_VERSION[kind]:
            yield f"its {kind} was made by version {unit.get('version')} of that stage, which is another one here"
    needed = [unit.get("kind") for unit in tree.get("needs", ())]
    wanted = ["tune"] if card.is_random else ["pretrain", "tune"]
    if sorted(map(str, needed)) != wanted:
        yield f"it is made from {', '.join(map(str, needed)) or 'nothing'}, and a run of '{card.name}' from {', '.join(wanted)}"
    for unit in tree.get("needs", ()):
        fixed = unit.get("replicate") is None and unit.keys() & {"origin", "checkpoint"}
        if unit.get("kind") == "pretrain" and unit.get("replicate") != record.replicate and not fixed:
            yield f"its pretraining is that of replicate {unit.get('replicate')}: a replicate is one draw of the whole pipeline"
    pretrained = [unit for unit in _units(record) if unit.get("kind") == "pretrain"]
    if any(unit.get("backbone") != backbone for unit in pretrained):
        yield "its pretraining is of another backbone"
    if card.checkpoints:
        one = card.checkpoint_for(record.backbone)
        given = one.model_dump(mode="json", include={"inside", "mean", "std", "sha256"}) if one else {}
        given |= {"rename": [list(pair) for pair in sorted(one.rename.items())]} if one else {}
        if not given or [
            unit.get("checkpoint") for unit in tree.get("needs", ()) if unit.get("kind") == "pretrain"
        ] != [given]:
            yield "its checkpoint is not the file that the card names for this backbone, or it was read in another way"
        elif (
            record.weights
            != f"{one.path.name if one and one.path else given and one and one.url} sha256:{given['sha256']}"
        ):
            yield "weights is not the file that the card names"


_OF_A_RUN = {"kind", "version", "backbone", "needs", "card", "target", "protocol", "train_frac", "replicate"}
_SPELLED: Mapping[str, set[str]] = {  # what the identity of a unit may hold; see `bench.units.Unit.spelled_out`
    "final": _OF_A_RUN,
    "tune": _OF_A_RUN,
    "pretrain": {
        *("kind", "version", "backbone", "needs", "protocol", "replicate", "origin", "checkpoint", "corpus", "teacher"),
        *("permuted", "shuffled", "random-rank"),
    },
    "corpus": {"kind", "version", "teacher", "labelling", "images", "replicate"},
}


def _unit_faults(record: RunRecord, cards: Iterable[SourceCard]) -> Iterator[str]:
    """Whatever in the identity of a run no unit has: with a key of one's own a run could be another run for every check."""
    recipes = [card.recipe for card in cards if card.recipe is not None]
    labellings = [recipe.labelling() for recipe in recipes]
    asked = [_teacher(recipe.teacher) for recipe in recipes]
    for unit in _units(record):
        kind = str(unit.get("kind"))
        if strange := sorted(map(str, unit.keys() - _SPELLED.get(kind, set()))):
            yield f"the identity of its {kind[:20]} holds {strange[0][:40]!r}, which no {kind[:20]} has"
        if kind != "corpus":
            continue
        teacher = unit.get("teacher")
        if unit.get("labelling") not in labellings:
            yield "its label maps were made by other rules than those of its card"
        if not isinstance(teacher, dict) or {k: v for k, v in teacher.items() if k != "sha256"} not in asked:
            yield "its label maps are of another teacher than that of its card"


def _teacher(settings: teachers.Settings) -> dict[str, Any]:
    """The identity of a teacher but for the hash of its checkpoint."""
    away = {"checkpoint", "sha256", "points_per_batch"} if settings.kind == "sam" else set()
    return settings.model_dump(mode="json", exclude=away) | {"teacher_version": teachers.VERSIONS[settings.kind]}


def _fingerprints(tree: Mapping[str, Any]) -> tuple[str, str]:
    """(fingerprint of a unit, that of its cell) from all that they are made of; as `bench.units.Unit` has them."""
    below = [_fingerprints(unit) for unit in tree.get("needs", ())]
    runs, cells = [run for run, _ in below], [cell for _, cell in below]
    own = {name: value for name, value in tree.items() if name != "replicate"}
    run = dict(tree) | ({"needs": runs} if "needs" in tree else {})
    return fingerprint(run), fingerprint(own | {"needs": cells})


def _units(record: RunRecord) -> list[Mapping[str, Any]]:
    """The unit of a run and all those that it needs, as its settings spell them out."""
    tree = record.settings.get("identity")
    return list(_spelled(tree)) if isinstance(tree, dict) else []


def _spelled(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield tree
    for unit in tree.get("needs", ()):
        yield from _spelled(unit)


def _budget_faults(record: RunRecord, protocol: Protocol, folder: Path, steps: int) -> Iterator[str]:
    """Trials, candidates, the choice among them, and steps."""
    assert record.tuning is not None
    assert record.provenance is not None
    told = record.tuning
    try:
        trials = read_trials(folder / "trials.jsonl")
    except (TypeError, OSError, RecursionError):
        trials = []
    if not len(trials) == told.trials == protocol.trials:
        yield f"{len(trials)} trials in trials.jsonl, {told.trials} in the record, and {protocol.name} has {protocol.trials}"
    elif not _proposed(protocol, trials):
        yield f"its trials are not those that {protocol.name} proposes: every cell is to have the same"
    else:
        chosen, value = best(trials)
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
        rows = csv.DictReader(io.StringIO(read_regular(path, MOST_TEXT_BYTES, links=False).decode()))
        return [(int(row["step"]), float(row["loss"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _tail(rows: Sequence[tuple[int, float]]) -> float:
    losses = [loss for _, loss in rows[-max(1, len(rows) // 10) :]]
    return sum(losses) / len(losses)


def _certificate_faults(record: RunRecord, card: SourceCard, backbone: BackboneSpec, folder: Path) -> Iterator[str]:
    path = folder / "certificate.json"
    if (record.weights is None) != card.is_random:
        yield f"weights is {record.weights!r}, and '{card.name}' has {'random ones' if card.is_random else 'some'}"
    if card.is_random:
        if path.is_file() or record.weights_sha256 is not None:
            yield "its weights are random, and yet it has a certificate of weights"
        return
    try:
        told = json.loads(read_regular(path, MOST_TEXT_BYTES, links=False))
        passed = (
            told["passed"] is True
            and told["problems"] == []
            and told["tensors_matched"] == told["tensors_expected"] > 0
        )
        same = told["sha256"] == record.weights_sha256
        normalised = {"mean": told["mean"], "std": told["std"]}
        received = {name: (n["expected"], n["tensors"], n["values"]) for name, n in told["stages"].items()}
        count, changed = told["tensors_expected"], told["share_equal_to_initial_frac"] < 1
        moved = all(0 <= far <= 1 for far in told["feature_distance"]) and told["feature_distance"][-1] > 0
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        yield "certificate.json is missing or cannot be read: whether its weights were loaded is not known"
        return
    sizes = encoder_sizes(backbone)
    if received != {name: (tensors, tensors, values) for name, (tensors, values) in sizes.items()}:
        yield f"its certificate is not of every tensor of {record.backbone}'s encoder, stage by stage"
    elif count != sum(tensors for tensors, _ in sizes.values()):
        yield f"its certificate expects {count} tensors, and its stages have {sum(t for t, _ in sizes.values())}"
    if not passed or not changed or not moved:
        yield "its certificate says that the weights were refused, or not all loaded"
    if not same:
        yield "its certificate is that of other weights"
    if record.normalisation is None or not all(
        np.allclose(record.normalisation.get(name, []), value) for name, value in normalised.items()
    ):
        yield "normalisation is not that of its certificate"


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


def _bound_faults(evidence: Evidence, known: Truth, classes: Sequence[str], beta_squared: float) -> Iterator[str]:
    """Weighted F-measures that no prediction with these confusion matrices can have."""
    order = _order(evidence, known)
    values = evidence.weighted_f[order]
    bounds = weighted_f_bounds(evidence.confusion[order], known.edge, beta_squared)
    outside = (values < bounds.low - CLOSE) | (values > bounds.high + CLOSE)  # NaN is neither
    if outside.any():
        image, k = (int(place) for place in np.argwhere(outside)[0])
        yield (
            f"in {outside.sum()} places its weighted F-measure cannot be that of its confusion matrix, the first: {classes[k]} "
            f"on {known.ids[image]} has {values[image, k]:.4f}, where {bounds.low[image, k]:.4f} to "
            f"{bounds.high[image, k]:.4f} is possible"
        )


def _order(evidence: Evidence, known: Truth) -> list[int]:
    """Rows of the evidence in the order of the manifest."""
    rows = {name: row for row, name in enumerate(evidence.image_ids.tolist())}
    return [rows[name] for name in known.ids]


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
    order = _order(evidence, known)
    if evidence.groups[order].tolist() != known.groups:
        yield "its groups of images are not those of the manifest"
    differing = (evidence.confusion[order].sum(2) != known.pixels).any(1)
    if differing.any():
        first = known.ids[int(differing.argmax())]
        yield f"the pixels of each class differ from the manifest in {differing.sum()} images, the first {first}"
