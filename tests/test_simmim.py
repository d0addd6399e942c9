"""Masked image modelling: the squares, the loss, and the head on every encoder."""

import contextlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import protocol_fields
from PIL import Image
from small_vits import found

from backbones.network import Network, pixel_head
from backbones.registry import BACKBONES
from bench import DivergedError
from bench.spec import Protocol
from bench.spec.parts import Schedule
from bench.train.lesson import Lesson, split
from bench.train.loop import History, Progress, Training, fit, mean_loss
from bench.train.simmim import MASKED, MaskedBatches, ReconstructionLoss, constant_loss, masked_images, target_of
from bench.train.weights import build_for
from pretrain_sources.file_state import FileChangedError
from pretrain_sources.image_files import IGNORE
from pretrain_sources.pool import PoolError, read_pool
from pretrain_sources.simmim import SimMIM

CROP = (64, 96)  # 2 x 3 squares of 32 px, four of them masked
VITS = {"upernet:vit_wee_patch16_64": 16, "fpn:vit_wee_patch14_reg4_dinov2": 14, "upernet:vit_wee_patch8_64": 8}
STRIDES = {"tiny": 8, "dpt-vit-small": 16, "deeplabv3plus-resnet50": 16, **VITS}  # px of the last map, if not 32
# no crop has an edge
INSIDE = {"scale": [1, 1], "rare_crop_share": 0, "hflip": 0.5, "brightness": 0.2, "contrast": 0.2}
LARGE = {f"segformer-b{size}" for size in range(1, 6)}  # b0 with more channels or blocks


def protocol(**changes: object) -> Protocol:
    return Protocol.model_validate(protocol_fields(**{"crop_px": list(CROP), **changes}))


def lesson_on(scenes: Path, cache: Path, settings: Protocol | None = None, simmim: SimMIM | None = None) -> Lesson:
    images = read_pool(scenes / "scenes" / "unlabelled").images[:20]
    return masked_images(images, simmim or SimMIM(), settings or protocol(), cache / "cache.json")


def network_for(lesson: Lesson, backbone: str = "tiny", settings: Protocol | None = None) -> Network:
    torch.manual_seed(0)
    net = build_for(settings or protocol(), found(backbone), lesson.classes, on_target=False)
    lesson.fit_heads(net)
    return net


def ignore_progress(done: int, total: int, /, **facts: float) -> None:
    pass


def trained(
    lesson: Lesson, steps: int, report: Progress = ignore_progress, checkpoint: Path | None = None, lr: float = 1e-3
) -> tuple[Network, History]:
    net, settings = network_for(lesson), protocol()
    schedule = Schedule(lr=lr, encoder_lr_scale=1, weight_decay=0, warmup_frac=0, decay="poly")
    training = Training(settings, schedule, lesson.loss, steps, 0)
    return net, fit(net, lesson.batches(0, steps), training, report, checkpoint=checkpoint)


# -- squares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crop", "grid", "masked"),
    [((192, 192), (6, 6), 22), (CROP, (2, 3), 4), ((33, 31), (2, 1), 2), ((32, 20), (1, 1), 1)],
)
def test_as_many_squares_are_masked_as_in_the_paper(crop: tuple[int, int], grid: tuple[int, int], masked: int) -> None:
    """Its code rounds up."""
    assert (SimMIM().grid(crop), SimMIM().masked(crop)) == (grid, masked)
    assert SimMIM(mask_ratio=0.55, patch_px=1).masked((14, 10)) == 77


def test_squares_are_a_function_of_seed_and_step(scenes: Path, tmp_path: Path) -> None:
    lesson = lesson_on(scenes, tmp_path, protocol(augment=INSIDE))
    images, labels = lesson.batches(0, 4)[2]
    assert labels.dtype == torch.uint8
    again = lesson.batches(0, 9)[2]
    assert torch.equal(images, again[0])
    assert torch.equal(labels, again[1])
    others = [lesson.batches(0, 4)[3][1], lesson.batches(1, 4)[2][1]]
    assert not any(torch.equal(labels == MASKED, other == MASKED) for other in others)
    drawn = [(lesson.batches(0, 9)[step][1] == MASKED).long() for step in range(9)]
    assert any(not torch.equal(*masked) for masked in drawn), "each image has squares of its own"


def test_squares_do_not_depend_on_the_random_state(scenes: Path, tmp_path: Path) -> None:
    batches = lesson_on(scenes, tmp_path).batches(0, 4)
    torch.manual_seed(1)
    one = batches[0]
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(one, batches[0], strict=True))
    unpacked = pickle.loads(pickle.dumps(batches))  # as for the processes that load batches for a GPU
    assert all(torch.equal(a, b) for a, b in zip(one, unpacked[0], strict=True))


def test_whole_squares_are_masked_and_the_crops_are_those_without_them(scenes: Path, tmp_path: Path) -> None:
    batches = lesson_on(scenes, tmp_path, protocol(augment=INSIDE)).batches(0, 4)
    assert isinstance(batches, MaskedBatches)
    for step in range(4):
        images, labels = batches[step]
        assert torch.equal(images, batches._crops[step][0])
        squares = (labels == MASKED).float().view(2, 2, 32, 3, 32).mean((2, 4))
        assert squares.unique().tolist() == [0, 1]
        assert squares.sum((1, 2)).tolist() == [4, 4]
    mixed = lesson_on(scenes, tmp_path, protocol(augment=INSIDE | {"most_of_one_class": 0.75})).batches(0, 4)
    assert all(torch.equal(mixed[step][0], batches[step][0]) for step in range(4)), (
        "no crop is drawn again for its class"
    )


def test_an_image_below_the_size_of_a_square_is_masked_up_to_its_edge(pool: Path, tmp_path: Path) -> None:
    """Images of 20 x 24 px in crops of 64 x 96: what is beyond the edge is neither masked nor counted."""
    settings = protocol(augment={"scale": [1, 1], "rare_crop_share": 0, "hflip": 0, "brightness": 0, "contrast": 0})
    lesson = masked_images(read_pool(pool).images, SimMIM(), settings, tmp_path / "cache.json")
    assert (lesson.images, lesson.held_out) == (7, 0)
    masked = [lesson.batches(0, 8)[step][1] for step in range(8)]
    for labels in masked:
        assert (labels[:, 20:] == IGNORE).all()
        assert (labels[:, :, 24:] == IGNORE).all()
    assert {int((labels[:, :20, :24] == MASKED).sum()) for labels in masked} <= {0, 480, 960}
    _, history = trained(lesson, 4)
    assert all(np.isfinite(loss) for _, loss, _ in history)


def test_sources_hold_out_the_same_images() -> None:
    names = [f"{i:064x}" for i in range(40)]
    train, held_out = split(names)
    assert (len(held_out), sorted(train + held_out)) == (4, list(range(40)))
    assert split(names[::-1])[1] == sorted(39 - i for i in held_out)
    assert (len(split(names[:9])[1]), len(split([f"{i:064x}" for i in range(2000)])[1])) == (0, 64)


def test_no_image_is_both_learned_from_and_held_out(tmp_path: Path) -> None:
    for i in range(20):
        Image.fromarray(np.full((80, 120), 10 * i + 1, np.uint8)).save(tmp_path / f"frame_{i:02}.png")
    settings = protocol(augment=INSIDE | {"brightness": 0, "contrast": 0})
    lesson = masked_images(read_pool(tmp_path).images, SimMIM(), settings, tmp_path / "cache.json")
    assert (lesson.images, lesson.held_out) == (18, 2)
    learned, held_out = (
        {int(grey) for step in range(60) for grey in made(0, 60)[step][0].unique()}
        for made in (lesson.batches, lesson.probe)
    )
    assert len(learned) == 18
    assert len(held_out) == 2
    assert not learned & held_out


# -- loss ----------------------------------------------------------------------------------------------------------------


def test_only_masked_pixels_count_and_the_network_does_not_see_them(scenes: Path, tmp_path: Path) -> None:
    lesson = lesson_on(scenes, tmp_path)
    net = network_for(lesson).eval()
    images, labels = lesson.batches(0, 1)[0]
    masked = (labels == MASKED)[:, None]
    grey = images.float() / 255
    with torch.no_grad():
        made = net.reconstruct(grey, masked)
        other = torch.where(masked, torch.rand_like(grey), grey)
        assert torch.equal(made, net.reconstruct(other, masked)), "hidden"
        assert not torch.equal(made, net(grey))
        value = lesson.loss.of(net, grey, labels, contextlib.nullcontext())
    error = (made - target_of(net, grey)).abs()[masked]
    torch.testing.assert_close(value, error.mean())
    nothing = torch.zeros_like(labels)
    assert lesson.loss.of(net, grey, nothing, contextlib.nullcontext()) == 0


@pytest.mark.parametrize("backbone", ["tiny", "segformer-b0"])  # one mean for all channels, and one for each
def test_masked_pixels_are_the_mean_grey_in_the_encoders_input(backbone: str) -> None:
    seen = []
    net = build_for(protocol(), BACKBONES[backbone], 2).eval()
    net.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    masked = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    masked[..., :32] = True
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        net.reconstruct(images, masked)
        net(images)
    assert (seen[0][..., :32] == 0).all()
    assert torch.equal(seen[0][..., 32:], seen[1][..., 32:])
    torch.testing.assert_close(target_of(net, images), seen[1].mean(1, keepdim=True))


def test_bf16_gives_a_loss_in_full_precision(scenes: Path, tmp_path: Path) -> None:
    lesson = lesson_on(scenes, tmp_path)
    net = network_for(lesson)
    images, labels = lesson.batches(0, 1)[0]
    grey = images.float() / 255
    full = lesson.loss.of(net, grey, labels, contextlib.nullcontext())
    half = lesson.loss.of(net, grey, labels, torch.autocast("cpu", torch.bfloat16))
    assert half.dtype == torch.float32
    assert half != full
    torch.testing.assert_close(half, full, rtol=0.05, atol=0)


def test_the_best_constant_is_the_median_of_what_is_masked(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson = lesson_on(scenes, tmp_path, protocol(augment=INSIDE))  # as many masked pixels in each batch
    net = network_for(lesson)
    probe = lesson.probe(0, 2)
    best = constant_loss(net, probe, 2)
    assert best is not None
    values = torch.cat([target_of(net, probe[i][0].float() / 255)[:, 0][probe[i][1] == MASKED] for i in range(2)])
    losses = []
    for constant in (values.median(), values.mean(), values.min()):
        monkeypatch.setattr(net, "reconstruct", lambda images, masked, c=constant: torch.full_like(images, float(c)))
        losses.append(mean_loss(net, probe, 2, ReconstructionLoss(), protocol()))
    assert losses[0] == pytest.approx(best, abs=1e-5)
    assert min(losses[1:]) > best + 1e-4
    assert constant_loss(net, MaskedBatches(_Dark(), SimMIM(), 0), 2) is None


class _Dark(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Crops that lie beyond the edge of their images."""

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(2, 1, *CROP, dtype=torch.uint8), torch.full((2, *CROP), IGNORE, dtype=torch.uint8)


# -- heads and training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", [*(name for name in BACKBONES if name not in LARGE), *VITS])
def test_every_encoder_reconstructs_and_all_of_it_learns(backbone: str) -> None:
    torch.manual_seed(0)
    net = build_for(protocol(), found(backbone), 2)
    net.decoder = pixel_head(net)
    assert net.training
    masked = torch.rand(2, 1, 64, 96) < 0.5
    made = net.reconstruct(torch.rand(2, 1, 64, 96), masked)
    assert made.shape == (2, 1, 64, 96)
    assert net.decoder.pixels.out_channels == STRIDES.get(backbone, 32) ** 2
    made.square().mean().backward()
    idle = [name for name, p in net.encoder.named_parameters() if p.grad is None]
    assert not idle


@pytest.mark.parametrize(("step", "padding", "pixels"), [(24, 1, 21), (64, 1, 64), (1, 1, 1), (1, 2, 1)])
def test_a_map_whose_size_divides_no_image_is_resized(step: int, padding: int, pixels: int) -> None:
    """An encoder of one's own may have maps of any size; those of 24 px have three places on 64 px."""
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=step, padding=padding), _Listed())
    net = Network(BACKBONES["tiny"], encoder, torch.nn.Identity())
    net.decoder = pixel_head(net)
    assert net.decoder.pixels.out_channels == pixels**2
    images, masked = torch.rand(1, 1, 50, 75), torch.zeros(1, 1, 50, 75, dtype=torch.bool)
    whole = torch.nn.functional.interpolate(net.decoder(net.features(images, masked)), (64, 96), mode="bilinear")
    torch.testing.assert_close(net.reconstruct(images, masked), whole[..., :50, :75])


class _Listed(torch.nn.Module):
    """Makes a list of maps, with a token behind them."""

    def forward(self, last: torch.Tensor) -> list[torch.Tensor]:
        return [last, last.flatten(2).mean(2)]


class Killed(BaseException):
    """Simulates the death of the process."""


def test_a_killed_pretraining_resumes_to_the_same_weights(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.train.loop.KEPT_EVERY_S", 0)
    lesson, seen = lesson_on(scenes, tmp_path), []
    whole, history = trained(lesson, 5)

    def report(done: int, total: int, /, **facts: float) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise Killed

    with pytest.raises(Killed):
        trained(lesson, 5, report, tmp_path / "checkpoint.pt")
    parts, again = trained(lesson, 5, report, tmp_path / "checkpoint.pt")
    assert seen == [1, 2, 3, 4, 5], "it went on after the last checkpoint"
    assert again == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_it_learns_more_than_a_constant(scenes: Path, tmp_path: Path) -> None:
    """The network for tests sees little around it, so the squares are small."""
    lesson = lesson_on(scenes, tmp_path, simmim=SimMIM(patch_px=8))
    probe, settings = lesson.probe(0, 2), protocol()
    before = mean_loss(network_for(lesson), probe, 2, lesson.loss, settings)
    net, _ = trained(lesson, 60, lr=1e-2)
    after = mean_loss(net, probe, 2, lesson.loss, settings)
    constant = constant_loss(net, probe, 2)
    assert constant is not None
    assert after < 0.8 * min(constant, before)


def test_a_loss_that_is_not_finite_ends_it(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"at step \d+ of 20"):
        trained(lesson_on(scenes, tmp_path), 20, lr=1e30)


# -- images that cannot be used ----------------------------------------------------------------------------------------------


def test_unreadable_images_are_left_out_and_none_is_an_error(pool: Path, tmp_path: Path) -> None:
    (pool / "frame_02.png").write_bytes(b"torn")
    images = read_pool(pool).images
    for _ in range(2):  # the second time from the cache
        lesson = masked_images(images, SimMIM(), protocol(), tmp_path / "cache.json")
        assert lesson.images == 6
    with pytest.raises(PoolError, match="none of 1 images of the pool can be used: 1 not a readable image"):
        masked_images(images[2:3], SimMIM(), protocol(), tmp_path / "cache.json")


def test_an_image_that_changes_or_goes_is_named(pool: Path, tmp_path: Path) -> None:
    images = read_pool(pool).images
    lesson = masked_images(images, SimMIM(), protocol(), tmp_path / "cache.json")
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(pool / "frame_02.png")
    with pytest.raises(FileChangedError, match=r"frame_02.png has changed since it was listed"):
        list(map(lesson.batches(0, 20).__getitem__, range(20)))
    (pool / "frame_02.png").unlink()
    with pytest.raises(FileChangedError, match=r"frame_02.png cannot be read \(No such file or directory\)"):
        masked_images(images, SimMIM(), protocol(), tmp_path / "cache.json")
