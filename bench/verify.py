"""Judging a bundle: every number recomputed from its evidence, and everything that it says held against what is known here.

What passes is `recomputed`: the scores follow from the evidence, and the evidence is of the right images under the right protocol.
That the evidence was not made up shows only by predicting anew (`spot`) or training anew (`reproduce`), in `bench.repeat`.
"""

import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
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
from pretrain_sources.catalog import UnknownSource, catalog, collect, find_source
from pretrain_sources.identity import fingerprint
from pretrain_sources.yamlfile import FileError
from results import bundle, metrics
from results import leaks as findings
from results.evidence import Evidence, sha256
from results.record import RunRecord
from results.store import LEAKS, RUNS, Store, StoreError, slug

CLOSE = 1e-9  # scores recomputed by another numpy may differ in the last digits
SMOKE = "~smoke"


@dataclass
class Judged:
    """A bundle, or a plain store of shipped sources (`name` is None), and what was found of it. No `faults`: it passed."""

    folder: Path
    runs: Path
    name: str | None
    faults: list[str]
    records: list[RunRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    @cached_property
    def cards(self) -> Mapping[str, SourceCard]:
        """The shipped cards and the bundle's own.

        Raises:
            FileError: its card is wrong, or takes another's name.
        """
        return catalog() if self.name is None else collect([self.folder / bundle.CARD], catalog())


def judge(folder: Path, manifests: Sequence[Path] = (), others: Path | None = None) -> Judged:
    """Judges the bundle, or the store, in this folder; nothing of it is executed or trusted for a path.

    manifests: files for targets whose manifest does not ship. others: a store whose runs, and whose submissions, this bundle
    must not copy.

    Raises:
        BundleError: it cannot be opened at all. BenchError: a manifest cannot be read.
    """
    store = Store(folder)
    if not (folder / bundle.BUNDLE).is_file() and store.runs():
        judged = Judged(folder, folder, None, [])
    else:
        listing, faults = bundle.listed(folder)
        judged = Judged(folder, folder / RUNS, listing.name, faults)
        if faults:
            return judged  # of files that are not what was packed nothing can be said
        judged.done.append(f"{len(listing.files)} files are what {bundle.BUNDLE} lists")
        faults += _card_faults(judged, listing.name)
        store = Store(judged.runs)
    faults = judged.faults
    try:
        judged.records, unreadable = store.read_records()
    except StoreError as error:
        faults.append(str(error))
        return judged
    faults += [f"{one.path.relative_to(folder).as_posix()}: {one.why}" for one in unreadable]
    faults += _leak_faults(judged)
    if not [record for record in judged.records if record.status == "ok"]:
        faults.append("it holds no run that ended well")
    if faults:
        return judged
    known = {manifest.target: manifest for manifest in map(read_manifest, manifests)}
    proofs: dict[str, Evidence] = {}
    for record in judged.records:
        where = store.folder_of(record).relative_to(store.root).as_posix()
        faults += [f"{where}: {fault}" for fault in _run_faults(judged, store, record, known, proofs)]
    faults += list(_cell_faults(judged))
    faults += list(_copy_faults(judged, proofs, others))
    count = Counter(record.status for record in judged.records)
    judged.notes += [f"{n} runs ended as {status}" for status, n in count.items() if status != "ok"]
    told = f"{count['ok']} runs recomputed from their evidence: scores, replicates, budgets, images, identity"
    judged.done += [] if faults else [told]
    return judged


def _card_faults(judged: Judged, name: str) -> Iterator[str]:
    if judged.folder.name != slug(name):
        judged.notes.append(f"its folder is {judged.folder.name}; on a board it must be {slug(name)}")
    try:
        if name not in judged.cards or name in catalog():
            yield f"{bundle.CARD} is not the card of '{name}'"
    except FileError as error:
        yield str(error).replace(f"{judged.folder}/", "")


def _leak_faults(judged: Judged) -> Iterator[str]:
    """What it tells of test images that its sources have seen; that nobody has looked is worth knowing."""
    told: set[tuple[str, str]] = set()
    for path in sorted((judged.runs / LEAKS).glob("*/*.json")):
        where = path.relative_to(judged.folder).as_posix()
        found = findings.read_one(path)
        if found is None:
            yield f"{where} cannot be read"
        elif path != findings.path_of(Store(judged.runs), found.target, found.source):
            yield f"{where} is of {found.source} on {found.target}"
        elif judged.name is not None and not bundle.is_of(found.source, judged.name):
            yield f"{where} is of '{found.source}', and the bundle is of '{judged.name}'"
        else:
            told.add((found.source, found.target_hash))
            judged.notes.append(f"{found.source} has seen {found.share:.1%} of the test images of {found.target}")
    if judged.name is not None and not told:
        judged.notes.append("nobody has looked whether it has seen test images: `bench leaks`")


def _run_faults(
    judged: Judged, store: Store, record: RunRecord, manifests: Mapping[str, Manifest], proofs: dict[str, Evidence]
) -> Iterator[str]:
    """Everything that is wrong with one run."""
    if judged.name is not None and not bundle.is_of(record.source, judged.name):
        yield f"it is a run of '{record.source}', and the bundle is of '{judged.name}'"
        return
    try:
        protocol = _protocol(record.protocol)
        card = find_source(record.source, judged.cards)
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


def _cell_faults(judged: Judged) -> Iterator[str]:
    """Nothing double, nothing missing."""
    cells: dict[tuple[Any, ...], list[RunRecord]] = defaultdict(list)
    for record in judged.records:
        cells[record.target, record.protocol, record.source, record.backbone, record.train_frac].append(record)
    for key, records in cells.items():
        where = " x ".join(map(str, key[2:4]))
        if len({record.cell for record in records}) > 1:
            yield f"{where}: runs of two identities of one cell; pack the newer one"
        numbers = sorted(record.replicate for record in records)
        wanted = list(range(max(record.replicates for record in records)))
        if doubles := sorted({number for number in numbers if numbers.count(number) > 1}):
            yield f"{where}: replicate {doubles[0]} stands twice"
        if missing := sorted(set(wanted) - set(numbers)):
            yield f"{where}: replicates {', '.join(map(str, missing))} of {len(wanted)} are missing"
        if extra := sorted(set(numbers) - set(wanted)):
            yield f"{where}: there is no replicate {extra[0]} of {len(wanted)}"
        tuned = {json.dumps(record.tuning.schedule, sort_keys=True) for record in records if record.tuning}
        if len(tuned) > 1:
            yield f"{where}: its replicates used different schedules, and a cell has one"


def _copy_faults(judged: Judged, proofs: Mapping[str, Evidence], others: Path | None) -> Iterator[str]:
    """Evidence that another run has too, predictions and all."""
    seen: dict[str, str] = {}
    for record, evidence in [
        *_elsewhere(judged, others),
        *((r, proofs[r.run]) for r in judged.records if r.run in proofs),
    ]:
        if len(np.flatnonzero(evidence.confusion.sum((0, 1)))) < 2:
            continue  # nothing but one class was predicted: that happens to more than one run
        digest = sha256(evidence.confusion.astype(np.int64).tobytes() + evidence.weighted_f.tobytes())
        other = seen.setdefault(digest, record.run)
        if other != record.run:
            yield f"{record.source} x {record.backbone} r{record.replicate}: its evidence is that of the run {other[:12]}"


def _elsewhere(judged: Judged, others: Path | None) -> Iterable[tuple[RunRecord, Evidence]]:
    if others is None or not others.is_dir():
        return
    stores = [
        Store(others),
        *(Store(one.folder / RUNS) for one in bundle.submissions(others)[0] if one.name != judged.name),
    ]
    targets = {(record.target, record.protocol) for record in judged.records}
    for store in stores:
        for record in store.read_records()[0]:
            if record.status == "ok" and (record.target, record.protocol) in targets:
                try:
                    yield record, store.read_evidence(record)
                except (StoreError, ValueError):
                    continue
