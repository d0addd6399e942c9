import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest
from conftest import SCENES, Bench
from PIL import Image

from bench import BenchError, scenes
from bench.scenes import Scene, draw, make, render, split_of
from bench.scenes.camera import expose, planck, radiance
from bench.scenes.heat import Weather
from bench.scenes.painter import CLASSES, View
from bench.scenes.street import street
from bench.targets import open_target

BASE = "InfraredSemanticLabel"
SMALL = (60, (64, 64))
THINGS = {CLASSES.index(name) for name in CLASSES} - {
    CLASSES.index(name) for name in ("background", "road", "grass", "fence", "sky", "river", "sidewalk")
}


@pytest.fixture(scope="session")
def sample() -> list[Scene]:
    return [draw("labelled", i, (120, 160), seed=0) for i in range(60)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace rendering by noise, for tests of files and folders."""

    def noise(kind: str, number: int, size: tuple[int, int], seed: int) -> Scene:
        thermal = np.random.default_rng([len(kind), number]).integers(0, 256, size).astype(np.uint8)
        return Scene(thermal, np.eye(*size, dtype=np.uint8), np.zeros(size, np.uint16))

    monkeypatch.setattr(scenes, "draw", noise)


def digests(folder: Path, pattern: str) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob(pattern)}


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_frames(scenes: Path, tmp_path: Path) -> None:
    make(tmp_path / "scenes", 60, SCENES[1])
    for pattern, count in (("*.jpg", 120), ("*.png", 120)):
        fewer, more = digests(tmp_path / "scenes", pattern), digests(scenes / "scenes", pattern)
        assert len(fewer) == count
        assert fewer.items() <= more.items()


def test_seed_number_and_pool_change_the_frames() -> None:
    drawn = [("labelled", 3, 0), ("labelled", 3, 1), ("labelled", 4, 0), ("unlabelled", 3, 0)]
    frames = [draw(kind, number, (64, 64), seed).thermal.tobytes() for kind, number, seed in drawn]
    assert len(set(frames)) == len(drawn)


def test_the_pool_holds_other_scenes_and_no_labels(scenes: Path) -> None:
    labelled = set(digests(scenes / "scenes" / BASE / "JPEGImages", "*").values())
    pool = set(digests(scenes / "scenes" / "unlabelled", "*").values())
    assert len(labelled) == len(pool) == SCENES[0]
    assert not labelled & pool
    assert {p.suffix for p in (scenes / "scenes" / "unlabelled").iterdir()} == {".jpg"}


def test_the_soda_reader_reads_it_and_it_is_marked_synthetic(scenes: Path) -> None:
    target = open_target("scenes", scenes)
    assert {split: len(frames) for split, frames in target.splits.items()} == {"train": 40, "val": 20, "test": 30}
    assert "synthetic" in target.spec.label_note
    text = (scenes / "scenes" / "README.txt").read_text()
    assert "synthetic" in text
    assert "bench data make scenes --n 90 --size 120x160 --seed 0" in text


@pytest.mark.parametrize(("n", "train"), [(60, 40), (61, 41), (90, 60), (100, 60), (400, 240)])
def test_splits_are_whole_blocks_and_not_empty(n: int, train: int, quick: None, tmp_path: Path) -> None:
    make(tmp_path / "scenes", n, (64, 64))
    listed = {s: (tmp_path / "scenes" / BASE / f"{s}_infrared.txt").read_text().split() for s in ("train", "test")}
    assert [len(listed[split]) for split in ("train", "test")] == [train, n - train]
    assert sorted(listed["train"] + listed["test"]) == [f"{i:05d}" for i in range(n)]
    assert all(len({split_of(i) for i in range(block, block + 20)}) == 1 for block in range(0, n, 20))
    assert all(open_target("scenes", tmp_path).splits.values())


def test_all_classes_occur_and_no_other(scenes: Path) -> None:
    masks = [np.asarray(Image.open(p)) for p in (scenes / "scenes" / BASE / "SegmentationClassOne").iterdir()]
    found = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=len(CLASSES))
    assert len(found) == len(CLASSES)
    assert not [name for name, count in zip(CLASSES, found, strict=True) if count == 0]


def test_instances_are_visible_and_have_one_class_each(sample: list[Scene]) -> None:
    for scene in sample:
        pairs = np.unique(np.stack([scene.instances.ravel(), scene.labels.ravel()]), axis=1)
        numbers, labels = pairs[:, pairs[0] > 0]
        assert numbers.tolist() == list(range(1, int(scene.instances.max()) + 1))
        assert set(labels.tolist()) <= THINGS
        assert not set(pairs[1, pairs[0] == 0].tolist()) & THINGS


def test_instance_masks_are_written_with_sixteen_bits_beside_the_labels(scenes: Path) -> None:
    base = scenes / "scenes" / BASE
    scene = draw("labelled", 7, SCENES[1], seed=0)
    with Image.open(base / "InstanceMasks" / "00007.png") as image:
        assert image.mode == "I;16"
        assert np.array_equal(np.asarray(image), scene.instances)
    assert np.array_equal(np.asarray(Image.open(base / "SegmentationClassOne" / "00007.png")), scene.labels)


def contrast(sample: list[Scene], name: str, other: str) -> list[float]:
    """Return the difference of the mean grey values of two classes, for every frame with enough pixels of both."""
    a, b = CLASSES.index(name), CLASSES.index(other)
    both = [s for s in sample if min((s.labels == a).sum(), (s.labels == b).sum()) > 40]
    return [float(s.thermal[s.labels == a].mean() - s.thermal[s.labels == b].mean()) for s in both]


@pytest.mark.parametrize(("name", "other"), [("car", "road"), ("tree", "grass"), ("building", "road")])
def test_brightness_does_not_tell_the_class(name: str, other: str, sample: list[Scene]) -> None:
    found = contrast(sample, name, other)
    assert min(found) < -10
    assert max(found) > 10


def test_the_order_of_warmth_differs_between_day_and_night() -> None:
    day = Weather(air=25, sun=1, evening=0, clear=1, water=18, heated=0, sun_from=1)
    night = Weather(air=10, sun=0, evening=0.3, clear=1, water=18, heated=8, sun_from=1)

    def warmth(weather: Weather, material: str) -> float:
        return float(np.mean([weather.of(Random(i), material).temperature for i in range(50)]))

    assert warmth(day, "asphalt") > day.water
    assert warmth(night, "asphalt") < night.water
    assert warmth(day, "grass") > warmth(day, "leaves")
    assert warmth(night, "grass") < warmth(night, "leaves")
    assert warmth(day, "asphalt") > 34  # of skin
    assert warmth(night, "asphalt") < 34
    assert warmth(day, "paint") > day.air + 5
    assert warmth(night, "paint") < night.air - 3


def test_frames_are_noisy_varied_pictures(sample: list[Scene]) -> None:
    assert np.mean([len(np.unique(s.labels)) for s in sample]) > 7
    assert np.mean([s.thermal.std() for s in sample]) > 25


KELVIN = float(np.ptp(planck(np.array([20, 21], np.float32))))  # radiance of one degree


def test_surfaces_are_textured() -> None:
    for seed in (0, 1, 2, 4, 5, 6):  # where ground is seen
        painter = street(np.random.default_rng(seed), Random(seed), (120, 160))
        ids = np.asarray(painter.ids)
        on_ground = np.array([part.surface.ground for part in painter.parts])
        inside = ids == (np.bincount(ids.ravel(), minlength=len(on_ground)) * on_ground).argmax()
        triples = inside[:, :-2] & inside[:, 1:-1] & inside[:, 2:]
        bend = np.abs(np.diff(radiance(painter, ids), 2, axis=1))[triples]  # 0 for an even slope
        assert bend.mean() > 0.01 * KELVIN


def test_the_camera_adds_noise_to_pixels_and_more_to_whole_columns() -> None:
    flat, view = np.full((120, 160), planck(np.array([20], np.float32)), np.float32), View((120, 160), 200, 50, 2, 0)
    ratios = []
    for seed in range(20):
        steps = np.diff(expose(flat, view, np.random.default_rng(seed), Random(seed)).astype(float), axis=1)
        assert steps.std() > 0.5
        ratios.append(steps.mean(axis=0).std() * 120**0.5 / steps.std())  # about 1 where pixels are independent
    assert np.median(ratios) > 2


@pytest.mark.parametrize("size", [(64, 64), (64, 640), (101, 67), (480, 640)])
def test_every_size_can_be_drawn(size: tuple[int, int]) -> None:
    for i in range(6):
        scene = render(np.random.default_rng(i), size)
        assert scene.thermal.shape == scene.labels.shape == scene.instances.shape == size
        assert [str(part.dtype) for part in (scene.thermal, scene.labels, scene.instances)] == [
            "uint8",
            "uint8",
            "uint16",
        ]


def test_the_folder_is_written_atomically(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "scenes", *SMALL, report=stop)
    assert not list(tmp_path.iterdir())
    assert make(tmp_path / "scenes", *SMALL) == 120
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]


def test_concurrent_calls_do_not_mix(tmp_path: Path, quick: None) -> None:
    def attempt(_: int) -> str:
        try:
            return str(make(tmp_path / "scenes", *SMALL))
        except BenchError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(attempt, range(2)))
    assert "120" in ended
    assert sum("exists already" in text for text in ended) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]


def test_a_full_disk_is_reported_and_leaves_nothing(small_disk: Path, bench: Bench) -> None:
    ended = bench("data", "make", "scenes", "--size", "120x160", "--data", small_disk)
    assert ended.code == 1
    assert "free some space" in ended.err
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--size", "240"), "HEIGHTxWIDTH"),
        (("--size", "320x"), "HEIGHTxWIDTH"),
        (("--size", "-240x320"), "HEIGHTxWIDTH"),
        (("--size", "0x0"), "must be 64 to 640"),
        (("--size", "240x100000"), "must be 64 to 640"),
        (("--n", "-3"), "must be 60 to 100000; train, val and test"),
        (("--n", "59"), "must be 60 to 100000; train, val and test"),
        (("--n", "1000000"), "must be 60 to 100000; choose fewer"),
        (("--n", "many"), "not a valid integer"),
    ],
)
def test_invalid_sizes_and_numbers_are_refused(words: tuple[str, str], says: str, bench: Bench, tmp_path: Path) -> None:
    ended = bench("data", "make", "scenes", *words, "--data", tmp_path / "data")
    assert ended.code == 1
    assert says in ended.err
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_is_reported(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = bench("data", "make", "scenes", "--data", tmp_path / "file")
    assert ended.code == 1
    assert re.search(r"cannot write .*file.*--data DIR", ended.err)


def test_ctrl_c_leaves_nothing(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "draw", stop)
    ended = bench("data", "make", "scenes", "--data", tmp_path)
    assert ended.code == 3
    assert "nothing was kept" in ended.err
    assert not (tmp_path / "scenes").exists()
