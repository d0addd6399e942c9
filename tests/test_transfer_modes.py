"""Frozen encoders and linear probes, the auxiliary head, and what else of a training a protocol can set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import Bench, protocol_fields
from torch import nn

from backbones.heads import LinearHead, last_stages
from backbones.network import Network, build
from backbones.registry import BACKBONES, find_backbone
from backbones.transfer import state_sha256
from bench.spec import Protocol
from bench.targets import open_target
from bench.train.batches import Batches, Decoded, _distorted, _is_mixed, _window, open_split
from bench.train.loop import Training, fit, predict
from bench.train.loss import SegmentationLoss
from bench.train.weights import build_for
from pretrain_sources.image_files import IGNORE

BACKBONE_NAMES = ["tiny", "segformer-b0", "fpn-efficientnet-lite0", "upernet:vit_tiny_patch16_224"]


def protocol(**changes: object) -> Protocol:
    return Protocol.model_validate(protocol_fields(**changes))


def train(scenes: Path, settings: Protocol, backbone: str, steps: int = 3) -> tuple[Network, str]:
    """Train on the target; return (network, hash of its encoder before)."""
    frames = open_split(open_target("scenes", scenes), "train", settings)
    torch.manual_seed(0)
    net = build_for(settings, find_backbone(backbone), 21)
    before = state_sha256(net.encoder.state_dict())
    loss = SegmentationLoss(settings.loss, np.ones(21))
    training = Training(settings, settings.default, loss, steps, 0, frozen=settings.transfer != "finetune")
    fit(net, Batches(frames, settings, 21, 0, steps), training, lambda *_, **__: None)
    return net, before


@pytest.mark.parametrize("transfer", ["frozen", "linear"])
@pytest.mark.parametrize("backbone", BACKBONE_NAMES)
def test_a_frozen_encoder_gets_no_gradient_and_keeps_its_hash(backbone: str, transfer: str, scenes: Path) -> None:
    net, before = train(scenes, protocol(transfer=transfer), backbone)
    assert state_sha256(net.encoder.state_dict()) == before
    assert all(p.grad is None for p in net.encoder.parameters())
    assert not any(module.training for module in net.encoder.modules() if isinstance(module, nn.BatchNorm2d))
    assert all(p.grad is not None for p in net.decoder.parameters())
    assert isinstance(net.decoder, LinearHead) == (transfer == "linear")


def test_the_whole_network_moves_when_it_is_finetuned(scenes: Path) -> None:
    net, before = train(scenes, protocol(), "tiny")
    assert state_sha256(net.encoder.state_dict()) != before


def test_an_encoder_that_moves_although_it_is_frozen_ends_the_run(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BatchNorm's statistics would move in training mode, without a gradient."""
    monkeypatch.setattr(nn.ModuleList, "train", lambda self, mode=True: nn.Module.train(self, True))
    with pytest.raises(RuntimeError, match="frozen, and its weights changed"):
        train(scenes, protocol(transfer="frozen"), "tiny")


@pytest.mark.parametrize("backbone", BACKBONE_NAMES)
def test_a_linear_head_is_one_convolution_on_concatenated_maps(backbone: str) -> None:
    torch.manual_seed(0)
    net = build(find_backbone(backbone), 5, linear=True).eval()
    head: Any = net.decoder
    with torch.no_grad():
        features = net.features(torch.rand(2, 1, 64, 96))
        maps = last_stages(features)
        size = maps[0].shape[-2:]
        whole = torch.cat(
            [F.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in maps], dim=1
        )
        weight = torch.cat([part.weight for part in head.parts], dim=1)
        torch.testing.assert_close(head(features), F.conv2d(whole, weight, head.parts[0].bias), rtol=1e-4, atol=1e-5)
        assert net(torch.rand(2, 1, 50, 75)).shape == (2, 5, 50, 75)
    assert len(maps) == min(4, len(features))


def test_the_encoders_weights_do_not_depend_on_the_head() -> None:
    hashes = set()
    for options in ({}, {"linear": True}, {"auxiliary": True}):
        torch.manual_seed(0)
        hashes.add(state_sha256(build(BACKBONES["fpn-efficientnet-lite0"], 5, **options).encoder.state_dict()))
    assert len(hashes) == 1


def test_pretraining_does_not_depend_on_the_way_of_transfer() -> None:
    a, b = protocol(), protocol(transfer="linear")
    assert a.pretraining_hash == b.pretraining_hash
    assert a.identity_hash != b.identity_hash
    assert build_for(b, BACKBONES["tiny"], 3, on_target=False).decoder.__class__ is not LinearHead


def test_an_auxiliary_head_learns_and_is_left_out_at_test(scenes: Path) -> None:
    loss = protocol_fields()["loss"] | {"auxiliary_weight": 0.4}  # type: ignore[operator]
    settings = protocol(loss=loss)
    net, _ = train(scenes, settings, "tiny")
    assert net.auxiliary is not None
    assert all(p.grad is not None for p in net.auxiliary.parameters())
    frames = open_split(open_target("scenes", scenes), "val", settings)
    before = [pred for _, pred in predict(net, frames, settings, lambda *_, **__: None)]
    nn.init.constant_(net.auxiliary.layers[-1].weight, 9.0)  # type: ignore[union-attr, index]
    after = [pred for _, pred in predict(net, frames, settings, lambda *_, **__: None)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_protocols_normalisation_replaces_that_of_the_weights() -> None:
    settings = protocol(normalisation={"mean": 0.38, "std": 0.19})
    net = build_for(settings, BACKBONES["tiny"], 3)
    assert net.mean.flatten().tolist() == pytest.approx([0.38] * 3)
    assert net.std.flatten().tolist() == pytest.approx([0.19] * 3)
    assert settings.identity_hash != protocol().identity_hash
    for bad in ({"mean": 96.9, "std": 0.2}, {"mean": 0.4, "std": 0}):
        with pytest.raises(ValueError, match="normalisation"):
            protocol(normalisation=bad)


def test_gradients_are_not_limited_without_a_clip(scenes: Path) -> None:
    tight, free = (train(scenes, protocol(grad_clip=clip), "tiny", steps=1)[0] for clip in (1e-9, None))
    norms = [sum(float(p.grad.norm()) for p in net.parameters() if p.grad is not None) for net in (tight, free)]
    assert norms[0] < 1e-6 < norms[1]


# -- augmentation ----------------------------------------------------------------------------------------------------------


def augment(**changes: object) -> dict[str, object]:
    return protocol_fields()["augment"] | changes  # type: ignore[operator]


def test_scales_are_drawn_from_the_named_distribution() -> None:
    def heights(draw: str) -> np.ndarray:
        settings = protocol(augment=augment(scale=[0.5, 2.0], scale_draw=draw)).augment
        torch.manual_seed(0)
        return 100 / np.array([_window(settings, (100, 100))[0] for _ in range(3000)])

    assert np.median(heights("log-uniform")) == pytest.approx(1.0, abs=0.05)
    assert np.median(heights("uniform")) == pytest.approx(1.25, abs=0.05)


def test_crops_that_one_class_fills_are_drawn_again() -> None:
    label = np.zeros((200, 200), np.uint8)
    label[:, 180:] = 1
    frames = [Decoded("a", "g", np.zeros_like(label), label)]
    options: dict[str, Any] = {"scale": [1.0, 1.0], "rare_crop_share": 0}

    def mixed(most: float) -> float:
        settings = protocol(crop_px=[40, 40], augment=augment(**options, most_of_one_class=most))
        batches = Batches(frames, settings, 2, 0, 200)
        return float(np.mean([_is_mixed(crop.numpy(), 0.75) for i in range(200) for crop in batches[i][1]]))

    assert mixed(0.75) > 3 * mixed(1.0) > 0
    assert not _is_mixed(np.full((4, 4), IGNORE, np.uint8), 0.75)


def test_photometric_distortion_moves_brightness_and_contrast_as_mmsegmentation_does() -> None:
    """A grey image feels only the two: half of the crops each, +- 32 of 255, factors of 0.5 to 1.5, values cut to 0..255."""
    image = torch.arange(0, 256, dtype=torch.uint8)[None]
    torch.manual_seed(0)
    made = torch.stack([_distorted(image)[0] for _ in range(2000)]).int()
    plain = (made == image.int()).all(dim=1).float().mean()
    assert float(plain) == pytest.approx(0.25, abs=0.04)
    assert made.min() == 0
    assert made.max() == 255
    assert 0.5 * (128 - 32) - 1 <= made[:, 128].min() < 60
    assert 225 < made[:, 128].max() <= 1.5 * (128 + 32)
    assert float(made.float()[:, 128].mean()) == pytest.approx(128, abs=3)


# -- boards ----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shipped_protocol")
def test_a_probe_runs_and_its_board_is_its_own(scenes: Path, tmp_path: Path, bench: Bench) -> None:
    for transfer in ("finetune", "linear"):
        name = f"test-{transfer}"
        fields = protocol_fields(name=name, transfer=transfer, replicates=1, trials=1)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(fields))
        matrix = {"target": "scenes", "protocol": f"{name}.yaml", "sources": ["none"], "backbones": ["tiny"]}
        (tmp_path / f"{transfer}.yaml").write_text(yaml.safe_dump(matrix))
        ran = bench("run", "--matrix", tmp_path / f"{transfer}.yaml", "--executor", "inline", "--keep-weights")
        assert ran.code == 0, ran.err
    table = bench("table").out
    assert "scenes, test-finetune" in table
    assert "scenes, test-linear" in table
    assert "LINEAR PROBE" in table.split("scenes, test-linear")[1]
    assert "LINEAR PROBE" not in table.split("scenes, test-linear")[0]


@pytest.mark.usefixtures("shipped_protocol")
def test_shared_weights_keep_their_own_normalisation(scenes: Path, tmp_path: Path, bench: Bench) -> None:
    """Two protocols share the unit of a checkpoint, so it must not depend on the normalisation of the one that ran first."""
    from submitted import card_folder

    from results.record_files import read_records
    from results.store import Store

    folder = card_folder(tmp_path / "mine")
    for name, changes in (("own", {"normalisation": {"mean": 0.125, "std": 0.25}}), ("plain", {})):
        fields = protocol_fields(name=f"test-{name}", replicates=1, trials=1, **changes)
        (tmp_path / f"test-{name}.yaml").write_text(yaml.safe_dump(fields))
        matrix = {"target": "scenes", "protocol": f"test-{name}.yaml", "sources": ["none"], "backbones": ["tiny"]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(matrix))
        ran = bench("run", "--matrix", tmp_path / f"{name}.yaml", "--source", folder, "--executor", "inline")
        assert ran.code == 0, ran.err
    store = Store(tmp_path / "store")
    units = list((store.root / "units" / "pretrain").glob("*/certificate.json"))
    assert len(units) == 1
    records = {(one.protocol, one.source): one for one in read_records(store)[0]}
    plain, own = (records[f"test-{name}", "mine"].normalisation for name in ("plain", "own"))
    assert own == {"mean": [0.125] * 3, "std": [0.25] * 3}
    assert plain is not None
    assert plain["mean"] == json.loads(units[0].read_text())["mean"] != own["mean"]
