"""soda-unip-v2 against the published configuration of UNIP, field by field.

The values are those of `configs/fine_tuning/upernet_vit_small_12_512_slide_14k_soda.py`, `configs/_base_/datasets/soda.py` and, for
the decoder, PAD's `configs/_base_/models/upernet.py` (github casiatao/UNIP, commit 1903282, and casiatao/PAD, commit 6e1d295).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import protocol_fields

from backbones.network import build
from backbones.registry import find_backbone
from bench import BenchError
from bench.plan.matrix import load_matrix
from bench.plan.unfit import refuse_unfit
from bench.shipped import load_protocol
from bench.spec import Protocol
from bench.spec.parts import Schedule
from bench.train.optimiser import lr_factor, parameter_groups

UNIP = load_protocol("soda-unip-v2")

FIELDS: list[tuple[str, object, Callable[[Protocol], object]]] = [
    ("optimizer.lr", 1e-4, lambda p: p.default.lr),
    ("optimizer.weight_decay", 0.05, lambda p: p.default.weight_decay),
    ("optimizer.paramwise_cfg.layer_decay_rate", 0.65, lambda p: p.default.layer_decay),
    ("lr_config.policy", "poly", lambda p: p.default.decay),
    ("lr_config.power", 1.0, lambda p: p.poly_power),
    ("lr_config.warmup_iters", 1500, lambda p: round(p.default.warmup_frac * p.finetune_steps)),
    ("optimizer_config.grad_clip", None, lambda p: p.grad_clip),
    ("runner.max_iters", 14400, lambda p: p.finetune_steps),
    ("data.samples_per_gpu (4) x 2 GPUs", 8, lambda p: p.batch),
    ("img_norm_cfg.mean", 96.9255, lambda p: round(p.normalisation.mean * 255, 4) if p.normalisation else None),
    ("img_norm_cfg.std", 47.8976, lambda p: round(p.normalisation.std * 255, 4) if p.normalisation else None),
    ("train_pipeline.Resize.img_scale: short side", 512, lambda p: p.image_px and min(p.image_px)),
    ("train_pipeline.Resize.ratio_range", (0.5, 2.0), lambda p: p.augment.scale),
    ("train_pipeline.Resize: ratio drawn from", "uniform", lambda p: p.augment.scale_draw),
    ("train_pipeline.RandomCrop.crop_size", (512, 512), lambda p: p.crop_px),
    ("train_pipeline.RandomCrop.cat_max_ratio", 0.75, lambda p: p.augment.most_of_one_class),
    ("train_pipeline.RandomFlip.prob", 0.5, lambda p: p.augment.hflip),
    ("train_pipeline.PhotoMetricDistortion", True, lambda p: p.augment.photometric_distortion),
    ("test_cfg.crop_size", (512, 512), lambda p: p.window_px),
    ("test_cfg.stride", (341, 341), lambda p: p.stride_px),
    ("decode_head.loss_decode: cross-entropy alone", 0.0, lambda p: p.loss.dice_weight),
    ("decode_head.loss_decode: class weights", 0.0, lambda p: p.loss.class_weight_power),
    ("auxiliary_head.loss_decode.loss_weight", 0.4, lambda p: p.loss.auxiliary_weight),
    ("data.val.split", "test", lambda p: p.select_on),
]


@pytest.mark.parametrize(("field", "published", "ours"), FIELDS, ids=[field for field, _, _ in FIELDS])
def test_the_protocol_has_the_published_value(
    field: str, published: object, ours: Callable[[Protocol], object]
) -> None:
    assert ours(UNIP) == published


def test_its_search_space_is_one_point() -> None:
    assert UNIP.trials == 1
    assert UNIP.search.layer_decay is None


def test_what_differs_is_listed_in_its_description() -> None:
    for word in (
        "stochastic depth",
        "relative position",
        "layer scale",
        "padded with black",
        "after the warm-up",
        "bf16",
    ):
        assert word in " ".join(UNIP.description.split())


def published_rates() -> dict[str, float]:
    """The learning rates of their LayerDecayOptimizerConstructor for 12 layers and decay 0.65, redone by hand.

    num_layers = 12 + 2; id 0: tokens and embeddings; block i: i + 1; all else: 13. Rate: lr * 0.65 ** (14 - id - 1).
    """
    rates = {"patch_embed.proj.weight": 0.65**13, "cls_token": 0.65**13, "pos_embed": 0.65**13}
    return rates | {f"blocks.{i}.mlp.fc1.weight": 0.65 ** (12 - i) for i in range(12)} | {"decoder": 1.0}


def rates_of(net: Any, schedule: Schedule) -> dict[str, tuple[float, float]]:
    """Name of each parameter -> (learning rate / lr, weight decay)."""
    names = {id(p): name for name, p in net.named_parameters()}
    groups: list[dict[str, Any]] = parameter_groups(net, schedule)
    return {
        names[id(p)]: (group["lr"] / schedule.lr, group["weight_decay"]) for group in groups for p in group["params"]
    }


def test_learning_rates_equal_the_published_constructors() -> None:
    with torch.device("meta"):
        net = build(find_backbone("upernet:vit_small_patch16_224"), 21)
    found = rates_of(net, UNIP.default)
    assert len(found) == len(list(net.parameters()))
    expected = published_rates()
    for name, (rate, weight_decay) in found.items():
        inner = name.removeprefix("encoder.model.")
        parameter = net.get_parameter(name)
        key = "decoder" if name.startswith("decoder.") else inner
        if inner.startswith("blocks."):
            key = f"blocks.{inner.split('.')[1]}.mlp.fc1.weight"
        elif inner.startswith("patch_embed."):
            key = "patch_embed.proj.weight"
        assert rate == pytest.approx(published_rates()[key]), name
        expected.pop(key, None)
        plain = parameter.ndim < 2 or inner in ("cls_token", "pos_embed")
        assert weight_decay == (0.0 if plain else 0.05), name
    assert not expected, "every layer was met"


def test_a_decay_of_one_moves_nothing() -> None:
    with torch.device("meta"):
        net = build(find_backbone("upernet:vit_tiny_patch16_224"), 3)
    schedule = UNIP.default.model_copy(update={"layer_decay": 1.0})
    assert {rate for rate, _ in rates_of(net, schedule).values()} == {1.0}
    assert len(parameter_groups(net, schedule)) == 4


@pytest.mark.parametrize("decay", [0, 2, -0.5, float("nan"), "much"])
def test_an_impossible_decay_is_refused(decay: object) -> None:
    fields: dict[str, Any] = protocol_fields()
    with pytest.raises(ValueError, match="layer_decay"):
        Protocol.model_validate(protocol_fields(default=fields["default"] | {"layer_decay": decay}))


def test_layer_decay_on_a_pyramid_is_refused_before_anything_trains(tmp_path: Any) -> None:
    with pytest.raises(BenchError, match=r"needs a plain ViT, and 'tiny' is none: name one such as"):
        refuse_unfit([find_backbone("tiny")], UNIP, tmp_path)
    refuse_unfit([find_backbone("upernet:vit_tiny_patch16_224")], UNIP, tmp_path)
    with pytest.raises(ValueError, match="needs a plain ViT"):
        parameter_groups(build(find_backbone("tiny"), 3), UNIP.default)


def test_poly_of_power_one_is_a_straight_line() -> None:
    factors = [lr_factor(UNIP.default, step, 14400, UNIP.poly_power) for step in (1500, 1500 + 6450)]
    assert factors == pytest.approx([1.0, 0.5])


def test_another_layer_decay_than_the_protocols_is_not_of_its_search() -> None:
    assert UNIP.proposes(UNIP.default)
    assert not UNIP.proposes(UNIP.default.model_copy(update={"layer_decay": 0.9}))


def test_a_filter_leaves_an_unfit_backbone_out(tmp_path: Path) -> None:
    """Only the backbones that would be trained have to fit the protocol."""
    path = tmp_path / "mixed.yaml"
    fields = {"target": "scenes", "protocol": "soda-unip-v2", "sources": ["none"]}
    path.write_text(yaml.safe_dump(fields | {"backbones": ["tiny", "upernet:vit_tiny_patch16_224"]}))
    assert len(load_matrix(str(path), backbones=["upernet:*"]).cells) == 1
    with pytest.raises(BenchError, match="'tiny' is none"):
        load_matrix(str(path))
