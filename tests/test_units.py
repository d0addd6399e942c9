from dataclasses import replace

import pytest
from conftest import protocol_fields

from backbones.imagenet import Origin
from backbones.spec import BACKBONES
from bench import units
from bench.spec import Cell, Protocol
from bench.units import Unit, finals_of
from pretrain_sources.catalog import catalog

PROTOCOL = Protocol.model_validate(protocol_fields())
WHEEL = Origin("wheel", "wheel x==1", "x")


def make(
    source: str = "imagenet", backbone: str = "tiny", protocol: Protocol = PROTOCOL, **changes: object
) -> dict[str, Unit]:
    frac = changes.get("train_frac", 1.0)
    cell = Cell(target="soda", protocol=protocol.name, source=source, backbone=backbone, train_frac=frac)  # type: ignore[arg-type]
    origin = changes.get("origin", WHEEL) if source == "imagenet" else None
    finals = finals_of(cell, catalog()[source], BACKBONES[backbone], protocol, origin, str(changes.get("target", "t")))  # type: ignore[arg-type]
    made = {need.kind: need for need in finals[0].needs}
    return made | {f"final{unit.replicate}": unit for unit in finals}


def prints(made: dict[str, Unit]) -> dict[str, str]:
    return {name: unit.fingerprint for name, unit in made.items()}


def test_imagenet_is_loaded_once_for_all_replicates_and_none_not_at_all() -> None:
    assert list(make()) == ["pretrain", "tune", "final0", "final1"]
    assert list(make("none")) == ["tune", "final0", "final1"]
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
def test_what_shapes_a_result_is_in_its_fingerprint_and_nothing_else(
    change: dict[str, object], moved: set[str]
) -> None:
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


def test_long_sources_get_the_pretraining_steps_on_top() -> None:
    assert make("none")["final0"].finetune_steps == 3
    assert make("none/long")["final0"].finetune_steps == 5


def test_text_for_people_is_no_identity() -> None:
    unit = make()["tune"]
    reworded = replace(unit, card=unit.card.model_copy(update={"description": "other words"}))
    assert reworded.fingerprint == unit.fingerprint
