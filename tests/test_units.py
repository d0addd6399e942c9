from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from conftest import protocol_fields

from backbones.imagenet import Origin
from backbones.registry import BACKBONES
from bench.plan import unit as units
from bench.plan.cost import paced_by
from bench.plan.graph import Graph, InputsHere
from bench.plan.records import described, known_fields, leak_of, unfinished
from bench.plan.units import FinalUnit, Unit
from bench.spec import Cell, Protocol
from bench.targets.card import TargetSpec
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog, closure, find_source
from pretrain_sources.corpus import Corpus
from pretrain_sources.pool import Pool, PoolImage
from results.store import Store

PROTOCOL = Protocol.model_validate(protocol_fields(max_frames=None))
SPEC = TargetSpec("soda", ("background", "person"), "people-made masks", "frame")
WHEEL = Origin("wheel", "wheel x==1", "x")


def pool_of(n: int = 40, changed: str = "") -> Pool:
    images = [PoolImage(f"i{i}", Path(f"i{i}.jpg"), f"g{i // 10}", f"{i}{changed if not i else ''}") for i in range(n)]
    return Pool(Path(), tuple(images))


def planned(
    source: str, backbone: str = "tiny", protocol: Protocol = PROTOCOL, **changes: object
) -> tuple[InputsHere, list[FinalUnit]]:
    frac = changes.get("train_frac", 1.0)
    card = find_source(source, catalog())
    name = str(changes.get("on", "soda"))
    cell = Cell(target=name, protocol=protocol.name, source=card.name, backbone=backbone, train_frac=frac)  # type: ignore[arg-type]
    cards = closure([card], catalog())
    with mock.patch("backbones.imagenet.locate", return_value=changes.get("origin", WHEEL)):
        pool: Pool = changes.get("pool", pool_of())  # type: ignore[assignment]
        inputs = InputsHere(name, pool, Path("nowhere"), Store("nowhere"))
        graph = Graph(cards, protocol, str(changes.get("target", "t")), inputs)
        return inputs, graph.finals(cell, BACKBONES[backbone])


def make(source: str = "imagenet", *args: object, **changes: object) -> dict[str, Any]:
    """Return units by kind and replicate, needed units included."""
    waiting: list[Unit] = list(planned(source, *args, **changes)[1])  # type: ignore[arg-type]
    made = {}
    while waiting:
        unit = waiting.pop(0)
        made[f"{unit.kind}{'' if unit.replicate is None else unit.replicate}"] = unit
        waiting += unit.needs
    return made


def prints(made: dict[str, Unit]) -> dict[str, str]:
    return {name: unit.fingerprint for name, unit in made.items()}


def test_imagenet_is_loaded_once_for_all_replicates_and_none_never() -> None:
    assert set(make()) == {"pretrain", "tune", "final0", "final1"}
    assert set(make("none")) == {"tune", "final0", "final1"}
    assert len(set(prints(make()).values())) == 4
    assert len({unit.cell_fingerprint for name, unit in make().items() if name.startswith("final")}) == 1


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"target": "u"}, {"tune", "final0", "final1"}),
        ({"train_frac": 0.5}, {"tune", "final0", "final1"}),
        ({"origin": Origin("wheel", "wheel x==2", "x")}, {"pretrain", "tune", "final0", "final1"}),
        ({"origin": Origin("wheel", "wheel x==1", "elsewhere")}, set()),
        ({"backbone": "segformer-b0"}, {"pretrain", "tune", "final0", "final1"}),
        ({"protocol": PROTOCOL.model_copy(update={"finetune_steps": 9})}, {"tune", "final0", "final1"}),
        ({"protocol": PROTOCOL.model_copy(update={"description": "other words"})}, set()),
    ],
)
def test_the_fingerprint_holds_only_what_affects_a_result(change: dict[str, object], moved: set[str]) -> None:
    before, after = prints(make()), prints(make(**change))  # type: ignore[arg-type]
    assert {name for name in before if before[name] != after[name]} == moved


def test_a_new_result_version_is_a_new_identity_downstream(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prints(make())
    monkeypatch.setitem(units.RESULT_VERSION, "tune", 99)
    after = prints(make())
    assert {name for name in before if before[name] != after[name]} == {"tune", "final0", "final1"}


def test_more_replicates_keep_the_old_ones() -> None:
    more = PROTOCOL.model_copy(update={"replicates": 5})
    assert prints(make()).items() <= prints(make(protocol=more)).items()


def test_long_sources_add_the_pretraining_steps() -> None:
    assert make("none")["final0"].steps == 3
    assert make("none/long")["final0"].steps == 5


def test_descriptions_are_not_part_of_the_identity() -> None:
    unit = make()["tune"]
    reworded = replace(unit, card=unit.card.model_copy(update={"description": "other words"}))
    assert reworded.fingerprint == unit.fingerprint


SATIR = "satir/felzenszwalb"
DOWNSTREAM = {"pretrain0", "pretrain1", "tune", "final0", "final1"}


def test_a_corpus_is_made_once_and_used_by_every_replicate() -> None:
    made = make(SATIR)
    assert set(made) == {"corpus", *DOWNSTREAM}
    assert made["tune"].pretrained == made["pretrain0"]
    assert made["final1"].pretrained == made["pretrain1"]
    assert made["pretrain0"].needs == made["pretrain1"].needs == (made["corpus"],)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"backbone": "segformer-b0"}, DOWNSTREAM),
        ({"target": "u"}, {"tune", "final0", "final1"}),
        ({"train_frac": 0.5}, {"tune", "final0", "final1"}),
        ({"protocol": PROTOCOL.model_copy(update={"finetune_steps": 9})}, {"tune", "final0", "final1"}),
        ({"protocol": PROTOCOL.model_copy(update={"pretrain_steps": 9})}, DOWNSTREAM),
        ({"protocol": PROTOCOL.model_copy(update={"crop_px": (64, 64)})}, DOWNSTREAM),
        ({"pool": pool_of(changed="x")}, {"corpus", *DOWNSTREAM}),
        ({"pool": pool_of(39)}, {"corpus", *DOWNSTREAM}),
        ({"source": f"{SATIR}/top-4"}, {"corpus", *DOWNSTREAM}),
        ({"source": f"{SATIR}/min-size-9"}, {"corpus", *DOWNSTREAM}),
        ({"source": f"{SATIR}/n-10"}, {"corpus", *DOWNSTREAM}),
        ({"source": f"{SATIR}~shuffled"}, DOWNSTREAM),
        ({"source": f"{SATIR}~random-rank"}, DOWNSTREAM),
    ],
)
def test_the_fingerprint_holds_only_what_affects_a_pretraining(change: dict[str, object], moved: set[str]) -> None:
    before, after = prints(make(SATIR)), prints(make(**{"source": SATIR} | change))  # type: ignore[arg-type]
    assert {name for name in before if before[name] != after[name]} == moved


def test_a_chain_starts_from_the_pretraining_of_its_start() -> None:
    made = make(f"imagenet+{SATIR}")
    start = made["pretrain"]
    assert start.fingerprint == make("imagenet")["pretrain"].fingerprint
    assert start in made["pretrain1"].needs
    assert made["corpus"].fingerprint == make(SATIR)["corpus"].fingerprint


def test_permuted_weights_differ_between_replicates() -> None:
    made = make("imagenet~permuted")
    assert made["pretrain0"].fingerprint != made["pretrain1"].fingerprint
    assert made["pretrain0"].needs == (made["pretrain"],)


def test_equal_passes_give_a_larger_corpus_more_steps() -> None:
    passes = PROTOCOL.model_copy(update={"pretrain_steps": None, "pretrain_epochs": 2.0, "batch": 4})
    assert make(SATIR, protocol=passes)["pretrain0"].steps == 20
    assert make(f"{SATIR}/n-10", protocol=passes)["pretrain0"].steps == 5
    assert make(f"{SATIR}/n-10")["pretrain0"].steps == make(SATIR)["pretrain0"].steps == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("n-41", "41 images requested, but the pool has 40"),
        ("n-10-groups-5", "5 groups requested, but the pool has 4"),
        ("n-11-groups-1", "11 images requested, but its 1 drawn groups have 10"),
    ],
)
def test_a_subset_larger_than_the_pool_is_an_obstacle(name: str, says: str) -> None:
    inputs, finals = planned(f"{SATIR}/{name}")
    assert inputs.obstacle(finals[0].needs[0]) == says
    inputs, finals = planned(SATIR)
    assert inputs.obstacle(finals[0].needs[0]) is None


def test_sources_from_sam_tiny_are_marked_as_leak_on_scenes_only() -> None:
    marked = ("satir/sam-tiny", "satir/sam-tiny/top-4/n-3", "satir/sam-tiny~shuffled", "imagenet+satir/sam-tiny")
    for source in (
        *marked,
        "satir/sam-tiny~permuted",
        "satir/felzenszwalb+satir/felzenszwalb/top-4",
        "imagenet",
        "none",
    ):
        for target in ("scenes", "soda", "hit-uav"):
            leaks = {leak_of(unit, target) for unit in planned(source, on=target)[1]}
            assert (leaks != {None}) == (target == "scenes" and "sam-tiny" in source), (source, target)
            assert len(leaks) == 1
    assert (
        leak_of(planned(marked[0], on="scenes")[1][0], "scenes")
        == "its teacher sam-tiny was trained on this generator's own masks"
    )


@pytest.mark.parametrize(("model", "marked"), [("sam_tiny", True), ("vit_h", False), (None, False)])
def test_a_ready_made_corpus_is_marked_by_its_manifest(model: str | None, marked: bool) -> None:
    card = SourceCard.model_validate(
        {"name": "handed-round", "description": "x", "corpus": {"path": "c", "num_classes": 10}}
    )
    manifest = None if model is None else mock.Mock(teacher={"kind": "sam", "model": model})
    with (
        mock.patch(f"{__name__}.catalog", return_value={**catalog(), card.name: card}),
        mock.patch("bench.plan.graph.check_corpus", return_value=(Corpus(10, ()), [])),
        mock.patch("bench.plan.graph.read_manifest", return_value=manifest),
    ):
        for source in (card.name, "handed-round~shuffled"):
            (first, *_) = planned(source, on="scenes")[1]
            assert (leak_of(first, "scenes") is not None) == marked


def test_a_source_without_labels_needs_the_pools_images_and_no_corpus() -> None:
    made = make("pool/simmim")
    assert set(made) == {"pretrain0", "pretrain1", "tune", "final0", "final1"}
    assert made["pretrain0"].spelled_out()["simmim"] == {"patch_px": 32, "mask_ratio": 0.6}
    assert made["pretrain0"].learner is made["pretrain0"]
    assert made["pretrain0"].steps == 2
    for other in (
        make("pool/simmim", pool=pool_of(changed="x")),
        make("pool/simmim/ratio-0.5"),
        make("pool/simmim/n-20"),
    ):
        assert not set(prints(made).values()) & set(prints(other).values())
    elsewhere = make("pool/simmim", target="u")
    assert elsewhere["pretrain0"] == made["pretrain0"]
    assert elsewhere["final0"] != made["final0"]
    chained = make("imagenet+pool/simmim")["pretrain0"]
    assert {unit.kind for unit in chained.needs} == {"pretrain"}
    assert described(chained) == "pretrained here, imagenet+pool/simmim, from wheel x==1"
    assert paced_by(made["pretrain0"]) != paced_by(make("satir/felzenszwalb")["pretrain0"]), (
        "another head, another pace"
    )


def test_a_source_without_labels_has_the_leaks_of_what_it_starts_from() -> None:
    assert leak_of(make("pool/simmim")["final0"], "scenes") is None
    chained = make("satir/sam-tiny+pool/simmim")["final0"]
    assert leak_of(chained, "scenes") == "its teacher sam-tiny was trained on this generator's own masks"
    assert leak_of(chained, "hit-uav") is None


@pytest.mark.parametrize(
    ("source", "licence", "seen"),
    [
        ("none", None, "nothing"),
        ("satir/sam-tiny", "Apache-2.0", "ImageNet-1k (its encoder's start); scenes"),
        ("imagenet+satir/sam-tiny", "Apache-2.0", "ImageNet-1k; ImageNet-1k (its encoder's start); scenes"),
    ],
)
def test_records_state_licence_and_what_was_seen(source: str, licence: str | None, seen: str) -> None:
    _, finals = planned(source, "fpn-efficientnet-lite0")
    fields = known_fields(finals[0], SPEC)
    assert fields["licence"] == licence
    assert str(fields["has_seen"]).startswith(seen)


def test_statements_fit_into_a_record() -> None:
    _, finals = planned("none")
    card = finals[0].card.model_copy(update={"licence": "x" * 5000, "training_data": ("y" * 5000,)})
    run = unfinished(replace(finals[0], card=card), SPEC, "failed", "z" * 5000)
    assert run.licence is not None
    assert run.has_seen is not None
    assert run.reason is not None
    assert [len(text) for text in (run.licence, run.has_seen, run.reason)] == [2000] * 3
    unknown = card.model_copy(update={"training_data": "unknown"})
    assert known_fields(replace(finals[0], card=unknown), SPEC)["has_seen"] == "unknown"
