"""The identity of a record against the unit that its names stand for."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from submitted import fingerprints

from backbones.registry import find_backbone
from bench.shipped import load_protocol
from bench.submission.identity import Definitions, IdentityError, differing, identity_faults, unit_of
from bench.submission.reproduce import units_to_run
from bench.targets import shipped_targets
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog, find_source
from results.record import RunRecord
from results.record_files import read_records
from results.store import Store

RUNS = Path(__file__).parent.parent / "results" / "runs"
RECORDS = read_records(Store(RUNS))[0]


def definitions(record: RunRecord) -> Definitions:
    card = find_source(record.source, catalog())
    spec = shipped_targets()[record.target].spec
    return Definitions(load_protocol(record.protocol), card, catalog(), find_backbone(record.backbone), spec)


def first(source: str) -> RunRecord:
    return next(record for record in RECORDS if record.source == source)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.source} r{record.replicate}")
def test_the_unit_of_every_shipped_run_follows_from_its_names(record: RunRecord) -> None:
    """Unit and fingerprints are the same as when it was run; an independent computation agrees."""
    final = unit_of(record, definitions(record))
    assert (final.fingerprint, final.cell_fingerprint) == (record.run, record.cell)
    assert fingerprints(record.settings["identity"]) == (record.run, record.cell)
    assert list(differing(final.spelled_out(), record.settings["identity"])) == []


def need(tree: Any, *kinds: str) -> Any:
    for kind in kinds:
        tree = next(unit for unit in tree["needs"] if unit["kind"] == kind)
    return tree


@pytest.mark.parametrize(
    ("source", "change", "code"),
    [
        ("satir/sam-tiny", lambda t: need(t, "pretrain").update(replicate=3), "identity.field"),
        ("satir/sam-tiny", lambda t: need(t, "pretrain").update(backbone="0" * 64), "identity.field"),
        ("satir/sam-tiny", lambda t: need(t, "pretrain").update(protocol="0" * 64), "identity.field"),
        ("satir/sam-tiny", lambda t: need(t, "pretrain").update(shuffled=0), "identity.extra"),
        ("satir/sam-tiny", lambda t: need(t, "pretrain", "corpus")["labelling"].update(top=3), "identity.field"),
        ("satir/sam-tiny", lambda t: need(t, "pretrain", "corpus")["teacher"].update(model="x"), "identity.field"),
        (
            "satir/sam-tiny",
            lambda t: need(t, "pretrain", "corpus")["teacher"].update(sha256="0" * 64),
            "identity.field",
        ),
        ("satir/sam-tiny", lambda t: need(t, "pretrain", "corpus").update(version=True), "identity.version"),
        ("satir/sam-tiny", lambda t: need(t, "pretrain", "corpus").update(needs=[]), "identity.extra"),
        ("satir/sam-tiny", lambda t: need(t, "tune", "pretrain").update(replicate=1), "identity.field"),
        ("imagenet", lambda t: need(t, "tune").update(needs=[]), "identity.needs"),
        ("imagenet", lambda t: t.update(version=2), "identity.version"),
        ("imagenet", lambda t: t["needs"].reverse(), "identity.needs"),
        ("none", lambda t: t.update(train_frac=0.1), "identity.field"),
        ("none", lambda t: t.update(train_frac=1), "identity.field"),
        ("none", lambda t: t.update(salt=1), "identity.extra"),
        ("none", lambda t: t.update(needs="tune"), "identity.needs"),
        ("none", lambda t: t.update(needs=[7]), "identity.needs"),
        ("none", lambda t: t["needs"].append(deepcopy(t)), "identity.needs"),
    ],
)
def test_every_other_entry_of_an_identity_is_a_fault(source: str, change: Callable[[Any], None], code: str) -> None:
    """Even if the forger updates the fingerprints."""
    record = first(source)
    tree = deepcopy(record.settings["identity"])
    change(tree)
    try:
        run, cell = fingerprints(tree)
    except (AttributeError, TypeError):
        run, cell = record.run, record.cell
    forged = record.model_copy(update={"run": run, "cell": cell, "settings": record.settings | {"identity": tree}})
    try:
        final = unit_of(forged, definitions(record))
    except IdentityError:
        assert code == "identity.needs"
        return
    assert {fault.code for fault in identity_faults(forged, final)} == {code}


@pytest.mark.parametrize("images", ["", "x" * 64, 7, None, {"a": 1}, "0" * 63])
def test_the_hash_of_a_pool_must_be_valid(images: object) -> None:
    record = first("satir/felzenszwalb")
    tree = deepcopy(record.settings["identity"])
    need(tree, "pretrain", "corpus")["images"] = images
    with pytest.raises(IdentityError):
        unit_of(record.model_copy(update={"settings": {"identity": tree}}), definitions(record))


@pytest.mark.parametrize("origin", ["", "mine", 7, None])
def test_imagenet_weights_need_a_known_origin(origin: object) -> None:
    record = first("imagenet")
    tree = deepcopy(record.settings["identity"])
    need(tree, "pretrain")["origin"] = origin
    with pytest.raises(IdentityError):
        unit_of(record.model_copy(update={"settings": {"identity": tree}}), definitions(record))


def test_a_result_needs_weights_for_its_backbone() -> None:
    """A card without a checkpoint for the backbone explains a skipped run, not a measured one."""
    card = SourceCard.model_validate(
        {"name": "mine", "description": "x", "checkpoints": [{"backbones": ["segformer-b0"], "path": "x.pth"}]}
    )
    meant = replace(definitions(first("imagenet")), card=card, cards={**catalog(), "mine": card})
    tree = deepcopy(first("imagenet").settings["identity"])
    del need(tree, "pretrain")["origin"]
    need(tree, "pretrain")["checkpoint"] = None
    forged = first("imagenet").model_copy(update={"source": "mine", "settings": {"identity": tree}})
    with pytest.raises(IdentityError, match="no checkpoint for fpn-efficientnet-lite0"):
        unit_of(forged, meant)
    skipped = forged.model_copy(update={"status": "skipped"})
    assert unit_of(skipped, meant).pretrained is not None


def test_a_skipped_run_may_lack_imagenet_weights() -> None:
    tree = deepcopy(first("imagenet").settings["identity"])
    need(tree, "pretrain")["origin"] = None
    record = first("imagenet").model_copy(update={"status": "skipped", "settings": {"identity": tree}})
    pretrained = unit_of(record, definitions(record)).pretrained
    assert pretrained is not None
    assert pretrained.origin is None


def test_a_reproduction_does_not_repeat_the_pretraining_of_the_tuning() -> None:
    """Replicate 0 is pretrained for tuning, whose result is in the bundle."""
    record = next(r for r in RECORDS if r.source == "satir/sam-tiny" and r.replicate == 1)
    units = units_to_run(unit_of(record, definitions(record)))
    assert [(unit.kind, unit.replicate) for unit in units] == [("corpus", None), ("pretrain", 1), ("final", 1)]
    assert [unit.kind for unit in units_to_run(unit_of(first("none"), definitions(first("none"))))] == ["final"]
