from collections.abc import Iterator
from copy import deepcopy
from typing import Any, get_args

import pytest
from conftest import protocol_fields
from pydantic import BaseModel, ValidationError

from bench.shipped import load_protocol, shipped_files
from bench.spec import Protocol
from pretrain_sources.catalog import catalog, find_source
from pretrain_sources.hashing import derive_seed, fingerprint

PARTS: Any = protocol_fields()
SEARCH, AUGMENT = PARTS["search"], PARTS["augment"]


@pytest.mark.parametrize("name", shipped_files("protocols"))
def test_every_shipped_protocol_has_the_name_of_its_file(name: str) -> None:
    assert load_protocol(name).name == name


@pytest.mark.parametrize("name", ["soda", "hit-uav"])
def test_a_linear_probe_has_the_recipe_of_its_protocol(name: str) -> None:
    """So both share every pretraining."""
    [probe] = (load_protocol(path) for path in shipped_files("protocols") if path.startswith(f"{name}-linear"))
    usual = load_protocol(probe.name.replace("-linear", ""))
    own = {"name", "description", "transfer", "search"}
    assert probe.model_dump(exclude=own) == usual.model_dump(exclude=own)
    assert (probe.transfer, usual.transfer) == ("linear", "finetune")


def test_only_the_peer_protocol_selects_on_test() -> None:
    assert [name for name in shipped_files("protocols") if load_protocol(name).select_on == "test"] == [
        "soda-unip-v1",
        "soda-unip-v2",
    ]


def test_smoke_is_small_and_never_ranked() -> None:
    smoke = load_protocol("soda-v1").smoke()
    assert (smoke.finetune_steps, smoke.trials, smoke.replicates, smoke.ranked) == (2, 1, 1, False)
    assert smoke.name != "soda-v1"
    assert fingerprint(smoke.identity()) != fingerprint(load_protocol("soda-v1").identity())


def test_a_default_outside_the_search_space_is_refused() -> None:
    default = {"lr": 1.0, "encoder_lr_scale": 1.0, "weight_decay": 0.01, "warmup_frac": 0.1, "decay": "poly"}
    with pytest.raises(ValidationError, match="outside the search space"):
        Protocol.model_validate(protocol_fields(default=default))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"window_px": [32, 32]}, "both window_px and stride_px"),
        ({"window_px": [32, 32], "stride_px": [33, 32]}, "exceeds window_px"),
        ({"window_px": [32, 32], "stride_px": [0, 32]}, "greater than or equal to 1"),
        ({"crop_px": [0, 32]}, "greater than or equal to 1"),
        ({"search": {**SEARCH, "lr": {"low": 1e-2, "high": 1e-4}}}, "low must not exceed high"),
        ({"search": {**SEARCH, "lr": {"low": 0, "high": 1, "log": True}}}, "positive on a log scale"),
        ({"search": {**SEARCH, "lr": {"low": 0, "high": 1}}}, "lr.low 0.0: Input should be greater than 0"),
        ({"search": {**SEARCH, "warmup_frac": {"low": 0, "high": 1}}}, "warmup_frac.high 1.0: Input should be less"),
        ({"search": {**SEARCH, "weight_decay": {"low": -1, "high": 1}}}, "weight_decay.low -1.0"),
        ({"augment": {**AUGMENT, "scale": [0, 0]}}, "greater than 0"),
        ({"augment": {**AUGMENT, "scale": [-1, 1]}}, "greater than 0"),
        ({"augment": {**AUGMENT, "scale": [2, 0.5]}}, "the first number is larger than the second"),
        ({"augment": {**AUGMENT, "scale": [1, 1e9]}}, "less than or equal to 32"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Protocol.model_validate(protocol_fields(**changes))


def numbers(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every numeric field of a model."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from numbers(inner, (*at, name))
        elif {int, float} & set(parts(inner)):
            yield (*at, name)


def parts(annotation: object) -> Iterator[object]:
    yield annotation
    for inner in get_args(annotation):
        yield from parts(inner)


PLACES = list(numbers(Protocol))


def test_every_number_of_a_protocol_is_found() -> None:
    assert len(PLACES) == 41
    assert ("search", "warmup_frac", "high") in PLACES


@pytest.mark.parametrize("bad", [True, float("nan"), float("inf"), -1e300, 10**40, "many", None, [True, True]], ids=str)
@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_invalid_numbers_are_refused_everywhere(place: tuple[str, ...], bad: object) -> None:
    fields: dict[str, Any] = deepcopy(protocol_fields())
    inner = fields
    for name in place[:-1]:
        inner = inner[name]
    is_size = place[-1] == "scale" or place[-1].endswith("_px")
    if bad is None and place[-1] in (
        "image_px",
        "window_px",
        "stride_px",
        "max_frames",
        "pretrain_epochs",
        "grad_clip",
    ):
        return  # the field is optional
    inner[place[-1]] = [bad, bad] if is_size and not isinstance(bad, list) else bad
    with pytest.raises(ValidationError):
        Protocol.model_validate(fields)


def test_identity_excludes_only_description_and_replicates() -> None:
    base = Protocol.model_validate(protocol_fields())
    same = Protocol.model_validate(protocol_fields(description="other words", replicates=5))
    assert same.identity() == base.identity()
    for change in ({"finetune_steps": 4}, {"trials": 3}, {"seed": 1}, {"beta_squared": 0.3}, {"select_on": "test"}):
        assert Protocol.model_validate(protocol_fields(**change)).identity() != base.identity(), change


def test_frozen_models_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Protocol.model_validate(protocol_fields()).seed = 3


def test_fingerprints_are_canonical() -> None:
    assert fingerprint({"a": 1, "b": [2.0]}) == fingerprint({"b": [2.0], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(float("nan"))


def test_seeds_of_two_purposes_differ() -> None:
    assert derive_seed(0, "init", "r0") != derive_seed(0, "init", "r1")
    assert derive_seed(0, "a", "bc") != derive_seed(0, "ab", "c")
    assert 0 <= derive_seed(0) < 2**63


def test_a_changed_copy_has_its_own_identity() -> None:
    """A copy with other fields must not inherit cached properties."""
    base = Protocol.model_validate(protocol_fields())
    known = base.identity_hash, base.pretraining_hash
    for change, moved in (({"finetune_steps": 999}, (True, False)), ({"pretrain_steps": 999}, (True, True))):
        other = base.model_copy(update=change)
        assert (other.identity_hash != known[0], other.pretraining_hash != known[1]) == moved
    assert base.smoke().identity_hash != known[0]
    card = find_source("none", catalog())
    assert card.identity_hash != card.model_copy(update={"long": True}).identity_hash
