"""Check one run of a bundle against card, protocol, identity, evidence and test images."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from backbones.registry import BACKBONES
from backbones.spec import BackboneError
from bench import BenchError, shipped
from bench.plan.records import known_fields
from bench.plan.units import FinalUnit, Reconstructed
from bench.spec import Protocol
from bench.submission.evidence_checks import evidence_faults
from bench.submission.faults import Fault
from bench.submission.identity import Definitions, IdentityError, identity_faults, unit_of
from bench.submission.judged import Judged
from bench.submission.training_checks import training_faults
from bench.targets.card import TargetSpec
from bench.targets.manifest import Manifests
from bench.targets.mapping import map_spec
from pretrain_sources.catalog import UnknownSourceError, find_source
from pretrain_sources.config_file import suggestion
from results import bundle
from results.evidence_files import read_evidence
from results.record import RunRecord, evidence_name
from results.store import Store, StoreError

FOLLOWING = (  # fields of a record that follow from its unit
    *("classes", "label_note", "ranked", "selected_on_test", "transfer", "replicates", "finetune_steps"),
    *("result_version", "protocol_hash", "weights"),
)


def run_faults(record: RunRecord, store: Store, judged: Judged, manifests: Manifests) -> Iterator[Fault]:
    """Check one run of a bundle or of a plain store."""
    name = judged.name
    if name is not None and not bundle.is_of(record.source, name):
        yield Fault("record.source", f"run of '{record.source}', but the bundle is of '{name}'")
        return
    try:
        meant = _definitions(record, judged)
    except KeyError:
        why = f"unknown backbone {record.backbone!r}{suggestion(record.backbone, BACKBONES)}"
        yield Fault("record.unknown_name", why)
        return
    except (BenchError, UnknownSourceError, BackboneError, ValueError) as error:
        yield Fault("record.unknown_name", " ".join(str(error).split()))
        return
    yield from _settings_faults(record, meant)
    yield from _time_faults(record)
    if "identity" not in record.settings:
        yield Fault("identity.missing", "its settings have no identity: run it again with this version")
        return
    try:
        final = unit_of(record, meant)
    except IdentityError as error:
        yield Fault("identity.unreadable", str(error))
        return
    yield from identity_faults(record, final)
    yield from _field_faults(record, final, meant.spec)
    if record.status != "ok":
        return
    yield from training_faults(record, final, store.folder_of(record))
    stray = {path.name for path in store.folder_of(record).glob("evidence-*")} - set(
        map(evidence_name, record.by_split)
    )
    if stray:
        yield Fault("evidence.split", f"{sorted(stray)[0]} is of no test split in its record")
    try:
        evidence = {split: read_evidence(store, record, split) for split in record.by_split}
    except (StoreError, ValueError) as error:
        yield Fault("evidence.unreadable", str(error).replace(f"{store.root}/", ""))
        return
    yield from evidence_faults(record, evidence, meant.protocol, manifests)


def _definitions(record: RunRecord, judged: Judged) -> Definitions:
    """Look up the names in a record. Only shipped protocols count.

    Raises:
        KeyError: unknown backbone. BenchError, UnknownSourceError, BackboneError, ValueError: another unknown name.
    """
    protocol = shipped.named_protocol(record.protocol)
    card = find_source(record.source, judged.cards)
    spec = map_spec(judged.target_of(record).spec, protocol.class_map)
    return Definitions(protocol, card, judged.cards, judged.backbone_of(record), spec)


def _settings_faults(record: RunRecord, meant: Definitions) -> Iterator[Fault]:
    """Check the record's card, backbone and protocol against the card, registry and shipped protocol."""
    settings, protocol = record.settings, meant.protocol
    try:
        theirs = Protocol.model_validate(settings["protocol"]).identity()
    except (KeyError, ValueError, TypeError):
        theirs = {}
    if differing := [name for name, value in protocol.identity().items() if theirs.get(name) != value]:
        why = f"its protocol differs from the shipped {protocol.name} in {', '.join(differing)}: run it again"
        yield Fault("settings.protocol", why)
    if settings.get("card") != meant.card.identity():
        why = f"the card in its settings differs from that of '{meant.card.name}' in {bundle.CARD}"
        yield Fault("settings.card", why)
    if settings.get("backbone") != json.loads(json.dumps(asdict(meant.backbone))):
        why = f"the backbone in its settings differs from {record.backbone} as defined here, {meant.backbone.encoder}"
        yield Fault("settings.backbone", why)


def _field_faults(record: RunRecord, final: FinalUnit, spec: TargetSpec) -> Iterator[Fault]:
    """Check the fields of a record that follow from its unit."""
    expected = known_fields(final, spec)
    for name in FOLLOWING:
        if (actual := getattr(record, name)) != (value := expected[name]):
            why = f"{name} is {actual!r}, but for {final.card.name} under {final.protocol.name} it must be {value!r}"
            yield Fault("record.field", why)
    if expected["leak"] is not None and record.leak is None:
        why = (
            f"the source has seen {record.target} according to its card or teacher, but the record does not declare it"
        )
        yield Fault("record.leak", why)
    if record.reason is not None and not record.reason.isprintable():
        yield Fault("record.text", "its reason contains unprintable characters")
    if record.status != "ok":
        return
    assert record.provenance is not None
    protocol, on_gpu = final.protocol, record.provenance.gpu is not None
    if record.provenance.precision != protocol.precision:
        why = f"precision is {record.provenance.precision!r}, but {protocol.name} computes in {protocol.precision}"
        yield Fault("record.precision", why)
    if protocol.device != "any" and on_gpu != (protocol.device == "cuda"):
        why = f"it ran on a {'GPU' if on_gpu else 'CPU'}, but {protocol.name} runs on {protocol.device}"
        yield Fault("record.device", why)
    yield from _pretraining_faults(record, final)


def _pretraining_faults(record: RunRecord, final: FinalUnit) -> Iterator[Fault]:
    """Check that a record has a pretraining if and only if its source has one here, and what was measured of it."""
    learner, learned = final.learner, record.pretraining
    if (trained := learner is not None) != (learned is not None):
        why = (
            f"'{final.card.name}' has {'a' if trained else 'no'} pretraining on a corpus, but the record "
            f"{'has none' if trained else 'has one'}"
        )
        yield Fault("record.pretraining", why)
    if learner is None or learned is None:
        return
    if isinstance(learner.weights, Reconstructed):
        wrong = learned.heldout_miou is not None and "an mIoU on pseudo-labels, which it has not seen"
    else:
        wrong = (
            learned.heldout_loss_constant is not None
            and "the loss of a constant reconstruction, which it has not learned"
        )
    if wrong:
        yield Fault("record.pretraining", f"the record of '{final.card.name}' has {wrong}")


def _time_faults(record: RunRecord) -> Iterator[Fault]:
    times = {"finished": record.finished} | ({"started": record.provenance.started} if record.provenance else {})
    for name, text in times.items():
        try:
            invalid = datetime.fromisoformat(text).replace(tzinfo=UTC) > datetime.now(UTC) + timedelta(days=1)
        except ValueError:
            invalid = True
        if invalid:
            yield Fault("record.time", f"{name} is {text[:40]!r}, which is in the future or not ISO 8601")
