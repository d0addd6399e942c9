"""Extracting an encoder from a checkpoint, and the log of it."""

import re
import time
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layouts import (
    CONVNEXT_TINY,
    LITE,
    MIT_B0,
    RESNET34,
    RESNET50,
    SWIN_TINY,
    TINY,
    VIT_SMALL,
    Tensors,
    nvlabs_mit,
    same,
    whole,
)
from torch import Tensor

from backbones.checkpoint_file import CheckpointError
from backbones.encoder_layouts import encoder_of
from backbones.fitting import fit
from backbones.network import Network, build
from backbones.registry import BACKBONES, find_backbone
from backbones.spec import HALF, BackboneSpec
from backbones.transfer import EncoderWeights, LoadError, _tensor_problems, load_encoder


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def tiny_network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return build(TINY, 3)


def tiny() -> Tensors:
    return {name: tensor.contiguous() for name, tensor in tiny_network(1).encoder.state_dict().items()}


def load(tensors: Mapping[str, Tensor], spec: BackboneSpec = TINY, **keywords: Mapping[str, str]) -> object:
    fitted = fit(tensors, spec, **keywords)
    weights = EncoderWeights(fitted.tensors, HALF, HALF, "test", fitted.told)
    torch.manual_seed(0)
    return load_encoder(build(spec, 3), weights, torch.rand(1, 1, 64, 64), ["probe"])


WORDS = st.lists(st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=10), max_size=5)


@settings(max_examples=50, deadline=None)
@given(WORDS)
def test_any_prefix_is_removed(words: list[str]) -> None:
    tensors, prefix = tiny(), "".join(f"{word}." for word in words)
    fitted = fit({prefix + name: tensor for name, tensor in tensors.items()}, TINY)
    assert same(fitted.tensors, tensors)
    assert not prefix or f"prefix '{prefix}' removed from {len(tensors)} names" in fitted.told


def test_a_certificate_records_how_the_weights_were_read() -> None:
    tensors = {f"module.module.encoder.{name}": tensor.half() for name, tensor in tiny().items()}
    certificate = load(tensors | {"module.module.head.weight": torch.rand(3), "module.module.head.bias": torch.rand(3)})
    assert certificate.reading == (
        "layout: the encoder's own names",
        "prefix 'module.module.encoder.' removed from 18 names",
        "3 counters (num_batches_tracked) set to 0: missing or not integers",
        "15 tensors cast from float16 to float32",
        "2 tensors dropped, not part of the encoder: module.module.head.weight, module.module.head.bias",
    )
    assert certificate.to_json()["reading"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_floats_are_cast_and_recorded(dtype: torch.dtype) -> None:
    given = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tiny().items()}
    fitted = fit(given, TINY)
    assert {t.dtype for name, t in fitted.tensors.items() if "tracked" not in name} == {torch.float32}
    assert f"15 tensors cast from {str(dtype).removeprefix('torch.')} to float32" in fitted.told


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool])
def test_weights_that_are_not_floats_are_refused(dtype: torch.dtype) -> None:
    tensors = tiny()
    tensors["stages.1.0.weight"] = tensors["stages.1.0.weight"].to(dtype)
    with pytest.raises(CheckpointError, match=r"stages.1.0.weight is \w+, not floating-point"):
        fit(tensors, TINY)


def test_missing_counters_are_filled() -> None:
    tensors = {name: tensor for name, tensor in tiny().items() if not name.endswith("num_batches_tracked")}
    assert "3 counters (num_batches_tracked) set to 0: missing or not integers" in fit(tensors, TINY).told


def test_a_missing_tensor_is_reported_with_the_nearest_name() -> None:
    tensors = whole(LITE)
    tensors = {f"net.{name.replace('blocks.0.0.conv_dw', 'blk.0.0.conv_dw')}": t for name, t in tensors.items()}
    wanted = r"no tensor for model.blocks.0.0.conv_dw.weight; nearest in the file: net.blk.0.0.conv_dw.weight"
    with pytest.raises(LoadError, match=wanted) as refused:
        load(tensors, LITE)
    assert "1 tensors missing, in this layout net.blocks.0.0.conv_dw.weight" in refused.value.certificate.reading
    renamed = load(tensors, LITE, renamings={"net.blk.": "net.blocks."})
    assert "renaming 'net.blk.' -> 'net.blocks.': 1 names" in renamed.reading


def test_a_misnamed_block_is_reported_with_the_nearest_name() -> None:
    tensors = {name.replace("blocks.", "blk."): tensor for name, tensor in whole(LITE).items()}
    with pytest.raises(LoadError, match=r"no tensor for model.blocks.*nearest in the file: blk\."):
        load(tensors, LITE)
    assert load(tensors, LITE, renamings={"blk.": "blocks."}).passed


def test_a_refusal_is_fast_if_every_name_is_wrong() -> None:
    big = BACKBONES["segformer-b5"]
    given = {
        f"wrong_{name}": torch.empty(tensor.shape) for name, tensor in encoder_of(big).tensors.items() if "norm" in name
    }
    given |= {name: torch.empty(1) for name in list(encoder_of(big).tensors)[:10]}
    fitted = fit(given, big)
    started = time.monotonic()
    _tensor_problems(encoder_of(big).tensors, fitted.tensors)
    assert time.monotonic() - started < 20


def test_without_a_matching_layout_names_of_both_sides_are_listed() -> None:
    with pytest.raises(
        CheckpointError, match=r"no layout of resnet50.* matches .*checkpoint has foo.weight.*conv1.weight.*rename"
    ):
        fit({"foo.weight": torch.rand(3)}, RESNET50)
    with pytest.raises(CheckpointError, match="no layout of"):
        fit({}, RESNET50)


def larger(tensors: Tensors, block: str, new: str) -> Tensors:
    return tensors | {n.replace(block, new): t for n, t in tensors.items() if n.startswith(block)}


@pytest.mark.parametrize(
    ("spec", "block", "new"),
    [
        (RESNET34, "layer3.5.", "layer3.6."),
        (SWIN_TINY, "layers.2.blocks.5.", "layers.2.blocks.6."),
        (VIT_SMALL, "blocks.11.", "blocks.12."),
        (CONVNEXT_TINY, "stages.2.blocks.8.", "stages.2.blocks.9."),
        (LITE, "blocks.2.1.", "blocks.2.2."),
        (CONVNEXT_TINY, "stages.0.blocks.0.norm.", "stages.0.blocks.0.mlp.grn."),
        (VIT_SMALL, "cls_token", "reg_token"),
    ],
    ids=lambda value: getattr(value, "encoder", value),
)
def test_weights_of_another_architecture_are_refused(spec: BackboneSpec, block: str, new: str) -> None:
    """They have a tensor of the right shape under every name of the encoder, and more."""
    tensors = larger(whole(spec), block, new)
    with pytest.raises(CheckpointError, match=f"another architecture, such as a larger sibling.*does not have.*{new}"):
        fit({f"module.{name}": tensor for name, tensor in tensors.items()}, spec)


def test_a_larger_mit_is_refused_in_nvlabs_layout() -> None:
    tensors = nvlabs_mit()[0].state_dict()
    with pytest.raises(CheckpointError, match="larger sibling"):
        fit(larger(tensors, "block3.1.", "block3.2."), MIT_B0)


def test_two_encoders_are_refused() -> None:
    tensors = tiny()
    both = {f"{who}.backbone.{n}": t + (who == "teacher") for who in ("student", "teacher") for n, t in tensors.items()}
    with pytest.raises(
        CheckpointError, match=r"2 encoders.*'student.backbone.', 'teacher.backbone.'.*'teacher.backbone.': null"
    ):
        fit(both, TINY)
    chosen = fit(both, TINY, {"teacher.": None})
    assert same(chosen.tensors, tensors)
    assert "18 tensors dropped by the renamings" in chosen.told


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"never": "x"}, "never' -> 'x': matches none of the 18 names"),
        ({"^stages": "x"}, "matches none of the 18 names"),
        ({"stages.0.0.weight": "stages.1.0.weight"}, "the same name, stages.1.0.weight"),
        ({"s": "s" * 200}, "makes a name of 216 characters"),
        ({"stages.": "stages.", "st": "st"}, "'st' -> 'st': matches none of the 18 names"),
    ],
)
def test_a_bad_renaming_is_refused(rule: dict[str, str | None], why: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(why)):
        fit(tiny(), TINY, rule)


def test_the_longest_matching_prefix_wins_in_any_order() -> None:
    wrong = {name.replace("stages.", "level.", 1): tensor for name, tensor in tiny().items()}
    wrong = {name.replace("level.1.", "stages.10."): tensor for name, tensor in wrong.items()}
    rules: dict[str, str | None] = {"level.": "stages.", "stages.10.": "stages.1."}
    for order in (rules, dict(reversed(rules.items()))):
        assert same(fit(wrong, TINY, order).tensors, tiny())


def test_the_empty_prefix_matches_every_name() -> None:
    fitted = fit(tiny(), TINY, {"": "encoder."})
    assert same(fitted.tensors, tiny())
    assert "prefix 'encoder.' removed from 18 names" in fitted.told


def test_patterns_in_renamings_are_literal() -> None:
    """As a regular expression this would run for minutes on a name of 100 letters."""
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="matches none"):
        fit(tiny() | {"a" * 100: torch.rand(1)}, TINY, {"(a?" * 30 + ")" * 30 + "a" * 30 + "b": ""})
    assert time.monotonic() - started < 5


def test_a_long_name_is_refused() -> None:
    with pytest.raises(CheckpointError, match="a tensor's name has 100000 characters"):
        fit(tiny() | {"a." * 50000: torch.rand(1)}, TINY)


def test_a_backbone_made_from_a_name_reads_timms_and_torchvisions_names() -> None:
    import torchvision

    spec = find_backbone("fpn:resnet18")
    assert load(torchvision.models.resnet18().state_dict(), spec).passed
