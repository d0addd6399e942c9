"""The device of a teacher is the protocol's, or that of `bench corpus make --device`. A fake GPU computes on the CPU here."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_sam
import torch
import yaml
from conftest import Bench, write_matrix
from made_corpus import make, teacher, writer

from pretrain_sources import teachers
from pretrain_sources.corpus import Manifest, mask_cache, read_manifest
from pretrain_sources.corpus.mask_cache import ImageMasks, MaskCache, Refusal
from pretrain_sources.file_state import FileChangedError
from pretrain_sources.pool import read_pool
from pretrain_sources.recipe import FelzenszwalbTeacher, SamTeacher
from pretrain_sources.teachers import Masks, Teacher, TeacherError, UnsuitableError, device_used, sam
from results.store import Store

OPTIONS = {"points_per_side": 2, "pred_iou_thresh": 0, "stability_score_thresh": 0}


@pytest.fixture
def settings(tmp_path: Path) -> SamTeacher:
    tiny_sam.write_least(tmp_path / "least.pth")
    fields = {"model": "tiny_sam:build_least", "checkpoint": str(tmp_path / "least.pth")} | OPTIONS
    return SamTeacher.model_validate(fields)


@pytest.fixture
def sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices on which teachers are opened; all of them compute on the CPU."""
    devices: list[str] = []
    real = sam.open_teacher

    def opened(settings: SamTeacher, weights: Path, device: str) -> Teacher:
        devices.append(device)
        return real(settings, weights, "cpu")

    monkeypatch.setattr(sam, "open_teacher", opened)
    return devices


def sam_card(folder: Path, settings: SamTeacher) -> Path:
    recipe = {"teacher": settings.model_dump(exclude_none=True)}
    card = {"name": "satir/least", "description": "The smallest SAM.", "recipe": recipe}
    (folder / "least.yaml").write_text(yaml.safe_dump(card))
    return folder / "least.yaml"


def sam_matrix(folder: Path, settings: SamTeacher, **protocol: Any) -> Path:
    return write_matrix(folder, (sam_card(folder, settings).name,), **protocol)


def manifest_of(store: Path) -> Manifest:
    (path,) = (Store(store).root / "units" / "corpus").glob("*/manifest.json")
    manifest = read_manifest(path.parent)
    assert manifest is not None
    return manifest


@pytest.mark.usefixtures("sees_a_gpu")
def test_a_cpu_protocol_draws_on_the_cpu_although_there_is_a_gpu(
    settings: SamTeacher, bench: Bench, tmp_path: Path
) -> None:
    ran = bench("run", "--matrix", sam_matrix(tmp_path, settings), "--executor", "inline")
    assert "finished corpus" in ran.out, ran.out + ran.err  # the training after it fails: torch believes in the GPU
    assert manifest_of(tmp_path / "store").device == "cpu"
    image = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
    drawn = teachers.open_teacher(settings, tmp_path, "cpu")(image)
    assert len(drawn.masks) == len(teachers.open_teacher(settings, tmp_path)(image).masks) > 0


@pytest.mark.usefixtures("sees_a_gpu")
def test_a_protocol_for_any_device_draws_on_the_gpu(
    settings: SamTeacher, asked: list[str], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_gpus

    from bench.train import devices

    monkeypatch.setattr(devices, "device_of", fake_gpus.fake)
    monkeypatch.setattr(devices, "gpus", lambda: ["Fake GPU 0"])
    ran = bench("run", "--matrix", sam_matrix(tmp_path, settings, device="any"), "--executor", "inline")
    assert "finished corpus" in ran.out, ran.out + ran.err
    assert asked == ["cuda"]
    assert manifest_of(tmp_path / "store").device == "cuda"


def test_a_model_on_a_gpu_computes_in_half_precision(
    settings: SamTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, kinds = [], []
    real = torch.autocast

    def autocast(kind: str, dtype: torch.dtype) -> Any:
        kinds.append((kind, dtype))
        return real("cpu", torch.bfloat16)

    monkeypatch.setattr(sam.Sam, "to", lambda model, place: places.append(place) or model)
    monkeypatch.setattr(torch, "autocast", autocast)
    image = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
    drawn = teachers.open_teacher(settings, tmp_path, "cuda")(image)
    assert (places, kinds) == (["cuda"], [("cuda", torch.float16)] * 2)
    assert drawn.predicted_iou.dtype == np.float32
    teachers.open_teacher(settings, tmp_path, "cpu")
    assert (places[1:], len(kinds)) == (["cpu"], 2)


# -- bench corpus make -----------------------------------------------------------------------------------------------------


def words(pool: Path, settings: SamTeacher, out: Path) -> list[object]:
    return ["corpus", "make", "--pool", pool, "--recipe", sam_card(pool.parent, settings), "--out", out]


def test_a_gpu_that_is_not_there_is_refused_in_one_line(pool: Path, settings: SamTeacher, bench: Bench) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    ended = bench(*words(pool, settings, pool.parent / "c"), "--device", "cuda")
    assert ended.code == 1
    assert ended.err == "bench: --device cuda: torch sees no CUDA GPU on this machine; use --device cpu\n"
    assert not (pool.parent / "c").exists()


def test_only_sam_chooses_a_device(pool: Path, bench: Bench) -> None:
    ended = bench("corpus", "make", "--pool", pool, "--teacher", "felzenszwalb", "--out", "c", "--device", "cuda")
    assert ended.err == "bench: --device is for the teacher sam, not for felzenszwalb\n"
    assert device_used(FelzenszwalbTeacher(), "cuda") == "cpu"
    assert device_used(teacher(), "cuda") is None


@pytest.mark.usefixtures("sees_a_gpu")
@pytest.mark.parametrize(("device", "used"), [([], "cuda"), (["--device", "cpu"], "cpu")])
def test_the_command_takes_a_gpu_where_there_is_one(
    device: list[str], used: str, asked: list[str], pool: Path, settings: SamTeacher, bench: Bench, tmp_path: Path
) -> None:
    made = bench(*words(pool, settings, tmp_path / "c"), *device)
    assert made.code == 0, made.err
    assert asked == [used]
    manifest = read_manifest(tmp_path / "c")
    assert manifest is not None
    assert manifest.device == used
    said = {"cuda": "masks drawn on a CUDA GPU", "cpu": "masks drawn on a CPU"}[used]
    assert said in made.out
    assert f"note: {said}" in bench("corpus", "check", tmp_path / "c").out
    assert bench("corpus", "rerank", tmp_path / "c", "--out", tmp_path / "again", "--top-k", 2).code == 0
    again = read_manifest(tmp_path / "again")
    assert again is not None
    assert again.device == used


def test_a_manifest_without_a_device_is_read(pool: Path, tmp_path: Path, bench: Bench) -> None:
    make(pool, tmp_path / "c")
    path = tmp_path / "c" / "manifest.json"
    lines = [line for line in path.read_text().splitlines() if '"device"' not in line]
    path.write_text("\n".join(lines).replace('",\n}', '"\n}'))
    manifest = read_manifest(tmp_path / "c")
    assert manifest is not None
    assert manifest.device is None
    assert "drawn on" not in bench("corpus", "check", tmp_path / "c").out


# -- while a GPU draws -----------------------------------------------------------------------------------------------------


def fake_gpu(monkeypatch: pytest.MonkeyPatch, draw: Callable[[np.ndarray], Masks]) -> None:
    monkeypatch.setattr(mask_cache, "_open", {})
    monkeypatch.setattr(mask_cache, "open_teacher", lambda settings, weights, device: draw)


def squares(image: np.ndarray) -> Masks:
    drawn = np.zeros((2, *image.shape), bool)
    drawn[0, : 1 + int(image[0, 0]) % 9, :5] = drawn[1, :7, :7] = True
    scores = np.array([0.9, 0.8], np.float32)
    return Masks(drawn, scores, scores, ((), ()))


def plain(masks: list[ImageMasks]) -> list[object]:
    return [(m.image.id, m.masks if isinstance(m.masks, Refusal) else m.masks.table.to_pylist()) for m in masks]


def test_masks_of_a_gpu_come_in_order_and_have_files_of_their_own(
    pool: Path, settings: SamTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu(monkeypatch, squares)
    images, kept = read_pool(pool).images, tmp_path / "kept"
    expected = plain(list(MaskCache(settings, pool, kept).over(images)))
    made = list(MaskCache(settings, pool, kept, "cuda").over(images))
    assert plain(made) == expected
    assert len(list(kept.rglob("*.parquet"))) == 2 * 7
    fake_gpu(monkeypatch, lambda image: pytest.fail("all masks are kept"))
    assert plain(list(MaskCache(settings, pool, kept, "cuda").over(images))) == expected


def test_the_next_image_is_drawn_while_the_last_one_is_in_use(
    pool: Path, settings: SamTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[threading.Thread] = []
    enough = threading.Event()

    def draw(image: np.ndarray) -> Masks:
        drawn.append(threading.current_thread())
        if len(drawn) > mask_cache.AHEAD:
            enough.set()
        return squares(image)

    fake_gpu(monkeypatch, draw)
    images = MaskCache(settings, pool, tmp_path / "kept", "cuda").over(read_pool(pool).images)
    next(images)
    assert enough.wait(60), "images are drawn ahead"
    assert len(drawn) == 1 + mask_cache.AHEAD, "but not all of them, which bounds the memory"
    assert len(list(images)) == 6
    assert len(drawn) == 7
    assert len(set(drawn)) == 1
    assert not drawn[0].is_alive()


def test_failures_beside_a_gpu_are_those_of_a_cpu(
    pool: Path, settings: SamTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pool / "frame_01.png").write_bytes(b"torn")
    images = read_pool(pool).images
    third = MaskCache(settings, pool, tmp_path)._read(images[3]).pixels

    def draw(image: np.ndarray) -> Masks:
        if image is not third and np.array_equal(image, third):
            raise UnsuitableError("too narrow")
        return squares(image)

    fake_gpu(monkeypatch, draw)
    on = [plain(list(MaskCache(settings, pool, tmp_path / d, d).over(images))) for d in ("cpu", "cuda")]
    assert on[0] == on[1]
    made = MaskCache(settings, pool, tmp_path / "cuda", "cuda").over(images)
    kinds = [one.masks.kind for one in made if isinstance(one.masks, Refusal)]
    assert kinds == ["unreadable", "unsuitable"]

    (pool / "frame_04.png").write_bytes((pool / "frame_05.png").read_bytes())
    beside = MaskCache(settings, pool, tmp_path / "other", "cuda").over(images)
    assert [next(beside).image.id for _ in range(4)] == [image.id for image in images[:4]]
    with pytest.raises(FileChangedError, match=r"frame_04\.png has changed"):
        next(beside)

    def fails(image: np.ndarray) -> Masks:
        raise TeacherError("no memory is left")

    fake_gpu(monkeypatch, fails)
    with pytest.raises(TeacherError, match="no memory is left"):
        writer(tmp_path / "c", pool).write(MaskCache(settings, pool, tmp_path / "third", "cuda").over(images), 7)
