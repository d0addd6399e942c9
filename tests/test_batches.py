from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import protocol_fields

from bench.spec import Protocol
from bench.spec.parts import Loss
from bench.targets import Target, open_target
from bench.train.batches import Batches, Decoded, choose, class_pixels, class_weights, open_split
from pretrain_sources.image_files import IGNORE


@pytest.fixture(scope="module")
def target(scenes: Path) -> Target:
    return open_target("scenes", scenes)


def protocol(**changes: object) -> Protocol:
    return Protocol.model_validate(protocol_fields(**changes))


def batches(frames: list[Decoded], settings: Protocol, seed: int = 0, classes: int = 21) -> Batches:
    return Batches(frames, settings, classes, seed, steps=20)


def test_a_batch_depends_on_seed_and_step_alone(target: Target) -> None:
    frames = open_split(target, "train", protocol())
    a, b = batches(frames, protocol()), batches(frames, protocol())
    torch.manual_seed(99)
    late = a[7]
    assert all(torch.equal(x, y) for x, y in zip(late, b[7], strict=True))
    assert not torch.equal(a[6][0], late[0])
    assert not torch.equal(batches(frames, protocol(), seed=1)[7][0], late[0])


def test_batches_have_the_crops_size_and_known_labels(target: Target) -> None:
    frames = open_split(target, "train", protocol())
    images, labels = batches(frames, protocol(crop_px=[50, 70], batch=3))[0]
    assert images.shape == (3, 1, 50, 70)
    assert images.dtype == torch.uint8
    assert labels.shape == (3, 50, 70)
    assert set(labels.unique().tolist()) <= {*range(21), IGNORE}


def test_image_and_label_move_together() -> None:
    label = np.kron(np.arange(48, dtype=np.uint8).reshape(6, 8) % 5, np.ones((10, 10), dtype=np.uint8))
    frame = Decoded("a", "g", label * 40, label)
    quiet = {
        "scale": [1.0, 1.0],
        "rare_crop_share": 0.5,
        "hflip": 0.5,
        "vflip": 0.5,
        "brightness": 0.0,
        "contrast": 0.0,
    }
    source = batches([frame], protocol(augment=quiet, crop_px=[20, 20]), classes=5)
    for step in range(20):
        images, labels = source[step]
        assert torch.equal(images[:, 0].long(), labels * 40)


def test_a_crop_larger_than_the_frame_is_filled_with_ignore() -> None:
    frame = Decoded("a", "g", np.full((10, 12), 9, np.uint8), np.ones((10, 12), np.uint8))
    still = {"scale": [1.0, 1.0], "rare_crop_share": 0.0, "hflip": 0.0, "brightness": 0.0, "contrast": 0.0}
    _, labels = batches([frame], protocol(augment=still, crop_px=[16, 16], batch=1))[0]
    assert (labels == 1).sum() == 10 * 12
    assert (labels == IGNORE).sum() == 16 * 16 - 10 * 12


def test_crops_aim_at_rare_classes() -> None:
    label = np.zeros((200, 200), np.uint8)
    label[150:153, 20:23] = 1  # 9 of 40,000 pixels
    frame = Decoded("a", "g", label, label)
    still = {"scale": [1.0, 1.0], "hflip": 0.0, "brightness": 0.0, "contrast": 0.0}

    def share(rare: float) -> float:
        source = batches(
            [frame], protocol(augment=still | {"rare_crop_share": rare}, crop_px=[20, 20], batch=1), classes=2
        )
        return float(np.mean([bool((source[i][1] == 1).any()) for i in range(20)]))

    assert share(1.0) == 1.0
    assert share(0.0) < 0.3


def test_train_fractions_are_exact_nested_and_leave_test_alone(target: Target) -> None:
    settings = protocol(max_frames=None)
    ids = {frac: {f.id for f in choose(target, "train", settings, frac)} for frac in (0.1, 0.3, 1.0)}
    assert [len(ids[frac]) for frac in (0.1, 0.3, 1.0)] == [4, 12, 40]
    assert ids[0.1] < ids[0.3] < ids[1.0]
    assert len(choose(target, "test", settings, 0.1)) == 30
    few = protocol(max_frames=20)
    tenth, whole = ({f.id for f in choose(target, "train", few, frac)} for frac in (0.1, 1.0))
    assert (len(tenth), len(whole)) == (2, 20)
    assert tenth < whole


def test_a_protocol_that_selects_on_test_trains_on_val_too(target: Target) -> None:
    assert len(choose(target, "train", protocol(max_frames=None, select_on="test"))) == 60


def test_max_frames_selects_evenly(target: Target) -> None:
    names = [frame.id for frame in choose(target, "test", protocol(max_frames=3))]
    everything = [frame.id for frame in target.splits["test"]]
    assert names == [everything[0], everything[14], everything[29]]


def test_resizing_leaves_test_labels_at_their_own_resolution(target: Target) -> None:
    settings = protocol(image_px=[60, 80])
    train, test = open_split(target, "train", settings)[0], open_split(target, "test", settings)[0]
    assert train.image.shape == train.label.shape == test.image.shape == (60, 80)
    assert test.label.shape == (120, 160)


def test_class_weights_are_capped() -> None:
    loss = Loss(dice_background=True, class_weight_power=0.5, class_weight_cap=5)
    assert class_weights(np.array([1600, 100, 1, 0]), loss) == pytest.approx([1, 4, 5, 5])


def test_class_pixels_match_the_frames(target: Target) -> None:
    frames = choose(target, "train", protocol())
    decoded = open_split(target, "train", protocol())
    by_hand = sum(np.bincount(frame.label.ravel(), minlength=256)[:21] for frame in decoded)
    assert class_pixels(target, frames).tolist() == np.asarray(by_hand).tolist()
