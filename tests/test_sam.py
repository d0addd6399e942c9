"""Segment Anything as a teacher: the same masks as the package's generator, other prompts, and fetching weights."""

import functools
import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import tiny_sam
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
from segment_anything.build_sam import _build_sam, build_sam_vit_b
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box
from torchvision.ops import nms

from pretrain_sources.corpus.labels import EncodedMasks
from pretrain_sources.corpus.mask_cache import MaskCache, Refusal
from pretrain_sources.pool import read_pool
from pretrain_sources.recipe import SamTeacher
from pretrain_sources.teachers import Masks, Teacher, TeacherError, identity, obstacle, open_teacher, sam_weights
from safe_io.files import sha256_of

Frame = NDArray[np.uint8]
FRAMES = 5
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam") / "tiny.pth"
    tiny_sam.write_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def frames(hit_uav: Path) -> list[Frame]:
    paths = sorted((hit_uav / "hit-uav" / "unlabelled").glob("*.jpg"))
    return [np.array(Image.open(path).convert("L")) for path in paths[:: len(paths) // FRAMES][:FRAMES]]


def settings(checkpoint: Path, **changes: object) -> SamTeacher:
    fields = {"model": tiny_sam.ENTRY, "checkpoint": str(checkpoint), "points_per_side": 8} | tiny_sam.THRESHOLDS
    return SamTeacher.model_validate(fields | changes)


def teacher(checkpoint: Path, **changes: object) -> Teacher:
    return open_teacher(settings(checkpoint, **changes), checkpoint.parent)


def stock(checkpoint: Path, frame: Frame, **changes: object) -> list[dict]:
    model = tiny_sam.build()
    model.load_state_dict(torch.load(checkpoint))
    options = {"points_per_side": 8} | tiny_sam.THRESHOLDS | changes
    return SamAutomaticMaskGenerator(model, **options).generate(np.repeat(frame[..., None], 3, axis=2))


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0


def assert_same(ours: Masks, theirs: list[dict]) -> None:
    assert len(ours.masks) == len(theirs)
    assert min(iou(a, b["segmentation"]) for a, b in zip(ours.masks, theirs, strict=True)) >= 0.99
    assert ours.predicted_iou == pytest.approx([mask["predicted_iou"] for mask in theirs], abs=1e-5)
    assert ours.stability == pytest.approx([mask["stability_score"] for mask in theirs], abs=1e-3)
    assert np.allclose(ours.prompts, [mask["point_coords"][0] for mask in theirs])


def test_masks_equal_the_packages_and_every_filter_drops_some(checkpoint: Path, frames: list[Frame]) -> None:
    draw = teacher(checkpoint)
    for frame in frames[::2]:
        ours = draw(frame)
        assert len(ours.masks) >= 5
        assert ours.masks.shape[1:] == frame.shape
        assert_same(ours, stock(checkpoint, frame))
    last = len(ours.masks)
    single, any_iou, any_stability = (
        len(teacher(checkpoint, box_nms_thresh=1.0, **off)(frame).masks)
        for off in ({}, {"pred_iou_thresh": 0.0}, {"stability_score_thresh": 0.0})
    )
    assert last < single < min(any_iou, any_stability)


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
        {"min_mask_region_area": 4000, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 6},
        {"crop_n_layers": 1, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 3},
    ],
    ids=["crops", "small regions", "no thresholds"],
)
def test_masks_equal_the_packages_with_other_settings(
    changes: dict[str, object], checkpoint: Path, frames: list[Frame]
) -> None:
    theirs = stock(checkpoint, frames[0], **changes)
    for mask in theirs:
        mask["stability_score"] = np.nan_to_num(mask["stability_score"])
    without = {name: value for name, value in changes.items() if name not in ("crop_n_layers", "min_mask_region_area")}
    assert len(theirs) >= 10
    assert {mask["area"] for mask in theirs} != {mask["area"] for mask in stock(checkpoint, frames[0], **without)}
    assert_same(teacher(checkpoint, **changes)(frames[0]), theirs)


def test_boxes_cover_the_frame_and_give_one_mask_each(checkpoint: Path, frames: list[Frame]) -> None:
    height, width = frames[0].shape
    lax: dict[str, object] = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
    drawn = teacher(checkpoint, prompts="boxes", box_scales=(0.3, 1.0), box_overlap=0.5, crop_n_layers=1, **lax)(
        frames[0]
    )
    boxes = np.array(sorted(set(drawn.prompts)))
    assert boxes.shape == (6 * 6 + 1, 4)
    assert len(drawn.masks) == len(boxes)
    small = boxes[boxes[:, 2] - boxes[:, 0] < width]
    assert np.allclose(small[:, 2:] - small[:, :2], [0.3 * width, 0.3 * height])
    for low, high, side in ((0, 2, width), (1, 3, height)):
        starts = np.unique(small[:, low].round(6))
        assert (starts[0], small[:, high].max()) == (0, pytest.approx(side))
        assert np.diff(starts).max() <= 0.5 * 0.3 * side + 1e-6


def test_a_box_prompt_equals_the_packages(checkpoint: Path, frames: list[Frame]) -> None:
    drawn = teacher(checkpoint, prompts="boxes", box_scales=(0.25,), pred_iou_thresh=0.0, stability_score_thresh=0.3)(
        frames[0]
    )
    model = tiny_sam.build()
    model.load_state_dict(torch.load(checkpoint))
    predictor = SamPredictor(model)
    predictor.set_image(np.repeat(frames[0][..., None], 3, axis=2))
    assert len(drawn.masks) >= 3
    for mask, quality, box in zip(drawn.masks, drawn.predicted_iou, drawn.prompts, strict=True):
        theirs, score, _ = predictor.predict(box=np.array(box), multimask_output=False)
        assert iou(mask, theirs[0]) >= 0.99
        assert quality == pytest.approx(score[0], abs=1e-5)


def test_points_and_boxes_are_suppressed_together(checkpoint: Path, frames: list[Frame]) -> None:
    lax: dict[str, object] = {
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.5,
        "box_scales": (0.25,),
        "points_per_side": 6,
    }
    points, boxes, both = (
        teacher(checkpoint, prompts=prompts, **lax)(frames[1]) for prompts in ("points", "boxes", "points+boxes")
    )
    assert {len(prompt) for prompt in both.prompts} == {2, 4}
    frame = batched_mask_to_box(torch.from_numpy(both.masks)).float()
    assert len(nms(frame, torch.from_numpy(both.predicted_iou), 0.7)) == len(frame)
    assert max(len(points.masks), len(boxes.masks)) < len(both.masks) < len(points.masks) + len(boxes.masks)
    assert (np.diff(both.predicted_iou) <= 0).all()


def test_batches_limit_the_memory_and_change_no_mask(
    checkpoint: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pretrain_sources.teachers import mask_generator

    asked: dict[str, object] = {"prompts": "points+boxes", "box_scales": (0.4,), "points_per_side": 5}
    largest: list[int] = []
    judge = mask_generator.MaskGenerator._judge

    def watch(self: Any, low: torch.Tensor, *rest: Any) -> object:
        largest.append(len(low))
        return judge(self, low, *rest)

    monkeypatch.setattr(mask_generator.MaskGenerator, "_judge", watch)
    one, many = (teacher(checkpoint, points_per_batch=n, **asked)(frames[0]) for n in (1, 64))
    assert max(largest) == 1
    assert len(one.masks) == len(many.masks) > 5
    assert min(iou(a, b) for a, b in zip(one.masks, many.masks, strict=True)) >= 0.99
    assert one.prompts == many.prompts
    again = teacher(checkpoint, points_per_batch=64, **asked)(frames[0])
    assert np.array_equal(again.masks, many.masks)
    assert np.array_equal(again.stability, many.stability)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("area", [0, 50])
def test_an_image_without_masks(layers: int, area: int, checkpoint: Path) -> None:
    draw = teacher(checkpoint, pred_iou_thresh=1.0, crop_n_layers=layers, min_mask_region_area=area, points_per_side=2)
    drawn = draw(np.full((60, 80), 7, np.uint8))
    assert drawn.masks.shape == (0, 60, 80)
    assert drawn.prompts == ()


@pytest.mark.parametrize("size", [(1, 640), (640, 1), (1, 1), (2, 9000)])
def test_an_image_that_is_too_narrow_is_refused_alone(size: tuple[int, int], checkpoint: Path, tmp_path: Path) -> None:
    rng, pool = np.random.default_rng(0), tmp_path / "pool"
    pool.mkdir()
    for name, shape in (("a", (32, 40)), ("b", size), ("c", (40, 32))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(pool / f"{name}.png")
    cache = MaskCache(settings(checkpoint, crop_n_layers=1), tmp_path, tmp_path / "kept")
    first, narrow, last = cache.over(read_pool(pool).images)
    assert isinstance(first.masks, EncodedMasks)
    assert isinstance(last.masks, EncodedMasks)
    assert isinstance(narrow.masks, Refusal)
    assert narrow.masks.kind == "unsuitable"
    assert f"b.png: {size[1]} x {size[0]} pixels is too narrow for SAM in crops of 1 layers" in narrow.masks.why


def shallow(checkpoint: str | None = None) -> Sam:
    """As Meta's models are built, with two thin blocks."""
    return _build_sam(encoder_embed_dim=48, encoder_depth=2, encoder_num_heads=2, encoder_global_attn_indexes=[1])


@pytest.mark.parametrize("build", [shallow, pytest.param(build_sam_vit_b, marks=pytest.mark.stress)])
def test_metas_architecture(build: Callable[..., Sam], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sam_model_registry, "vit_b", build)
    torch.manual_seed(0)
    torch.save(sam_model_registry["vit_b"]().state_dict(), tmp_path / "vit_b.pth")
    own = SamTeacher(
        model="vit_b", checkpoint="vit_b.pth", points_per_side=2, pred_iou_thresh=0, stability_score_thresh=0
    )
    drawn = open_teacher(own, tmp_path)(np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8))
    assert drawn.masks.shape[1:] == (48, 64)
    assert 1 <= len(drawn.masks) <= 12
    assert set(drawn.prompts) <= {(x, y) for x in (16, 48) for y in (12, 36)}


def test_identity_follows_the_content_not_the_path(checkpoint: Path, tmp_path: Path) -> None:
    content = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert identity(settings(checkpoint), tmp_path)["sha256"] == content
    (tmp_path / "mine.pth").write_bytes(checkpoint.read_bytes())
    moved = settings(Path("mine.pth"), points_per_batch=3)
    assert identity(moved, tmp_path) == identity(settings(checkpoint), tmp_path)
    (tmp_path / "mine.pth").write_bytes(b"other")
    assert identity(moved, tmp_path)["sha256"] == hashlib.sha256(b"other").hexdigest()
    assert identity(SamTeacher(), tmp_path)["sha256"] == sam_weights.PUBLISHED["vit_h"].sha256


def test_a_replaced_checkpoint_with_its_old_time_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one")
    before, digest = path.stat(), sha256_of(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest() != digest


def refused(checkpoint: Path, **changes: object) -> str:
    with pytest.raises(TeacherError) as error:
        teacher(checkpoint, **changes)
    return str(error.value)


def test_a_wrong_hash_is_refused(checkpoint: Path) -> None:
    message = refused(checkpoint, sha256="0" * 64)
    for part in (
        str(checkpoint),
        "000000000000...",
        hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12],
        "`sha256`",
    ):
        assert part in message
    assert "0" * 13 not in message


def test_another_architecture_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    tensors = torch.load(checkpoint)
    tensors["strange"] = tensors.pop("pixel_odd", torch.zeros(3))
    tensors["mask_decoder.iou_token.weight"] = torch.zeros(1, 3)
    tensors["mask_decoder.mask_tokens.weight"] = torch.full_like(tensors["mask_decoder.mask_tokens.weight"], torch.nan)
    del tensors["prompt_encoder.no_mask_embed.weight"]
    torch.save({"state_dict": tensors}, tmp_path / "other.pth")
    message = refused(tmp_path / "other.pth")
    for part in (
        "1 missing (prompt_encoder.no_mask_embed.weight)",
        "1 unknown (strange)",
        "1 of another shape (mask_decoder.iou_token.weight)",
        "1 not finite (mask_decoder.mask_tokens.weight)",
    ):
        assert part in message


def test_a_builder_must_return_a_sam(checkpoint: Path) -> None:
    assert "returned int, not a segment_anything" in refused(checkpoint, model="fake_teacher:not_a_teacher")
    assert "is not offered to cards" in refused(checkpoint, model="builtins:dict")


class Harmful:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("write", [torch.save, lambda held, path: path.write_bytes(pickle.dumps(held, protocol=2))])
def test_code_in_a_checkpoint_is_never_run(write: Callable[[object, Path], object], tmp_path: Path) -> None:
    path, marker = tmp_path / "harmful.pth", tmp_path / "marker"
    write({"weight": Harmful(marker)}, path)
    with pytest.raises(TeacherError, match=r"harmful.pth contains code, which was not run"):
        sam_weights.load_tensors(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert marker.exists()


@pytest.mark.parametrize(
    "text", ["not found\n", "hello world", "epoch,loss\n1,2\n", "<html>\n", "cos\n", "(", "\x80", "j\0\0"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_files_are_refused(suffix: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_text(text)
    with pytest.raises(TeacherError, match=rf"text{suffix} "):
        sam_weights.load_tensors(path)


@pytest.mark.parametrize("kept", [0, 100, -100])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(suffix: str, kept: int, checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / f"torn{suffix}"
    save_file(torch.load(checkpoint), path) if suffix == ".safetensors" else path.write_bytes(checkpoint.read_bytes())
    assert sam_weights.load_tensors(path).keys() == tiny_sam.build().state_dict().keys()
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TeacherError, match=rf"torn{suffix} cannot be read.*download it again"):
        sam_weights.load_tensors(path)


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    for held in ([1, 2], {"epoch": 3}):
        torch.save(held, tmp_path / "numbers.pth")
        with pytest.raises(TeacherError, match="something other than named tensors"):
            sam_weights.load_tensors(tmp_path / "numbers.pth")


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_an_unavailable_published_checkpoint(no_cache: Path, tmp_path: Path) -> None:
    stop = obstacle(SamTeacher(), tmp_path)
    assert stop
    reason, _, mend = stop.partition("; ")
    for part in ("sam_vit_h_4b8939.pth", "2.6 GB", str(tmp_path), "HF_HUB_OFFLINE"):
        assert part in reason
    for part in (str(tmp_path / "sam_vit_h_4b8939.pth"), "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h"):
        assert part in mend
    with pytest.raises(TeacherError, match=r"sam_vit_h_4b8939.pth .* cannot be downloaded"):
        open_teacher(SamTeacher(), tmp_path)
    no_cache.mkdir(parents=True)
    (no_cache / "sam_vit_h_4b8939.pth").touch()
    assert obstacle(SamTeacher(), tmp_path) is None


def test_a_missing_given_checkpoint(tmp_path: Path) -> None:
    given = settings(Path("mine.pth"))
    stop = obstacle(given, tmp_path)
    assert stop
    assert str(tmp_path / "mine.pth") in stop
    for use in (identity, open_teacher):
        with pytest.raises(TeacherError, match=r"no checkpoint .*mine.pth"):
            use(given, tmp_path)
    (tmp_path / "mine.pth").touch()
    assert obstacle(given, tmp_path) is None


BYTES = bytes(range(256)) * 4096


class Server(BaseHTTPRequestHandler):
    """Serves BYTES; closes the connection half-way for paths with "broken"."""

    def do_HEAD(self) -> None:
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(BYTES)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(BYTES[: len(BYTES) // 2] if "broken" in self.path else BYTES)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def publish(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Publish BYTES as vit_b's checkpoint on a local server."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Thread(target=functools.partial(server.serve_forever, 0.01), daemon=True).start()

    def put(folder: str, sha256: str = hashlib.sha256(BYTES).hexdigest()) -> None:
        address = f"http://127.0.0.1:{server.server_port}/{folder}"
        monkeypatch.setitem(sam_weights.PUBLISHED, "vit_b", sam_weights.Published("b.pth", sha256, "1 MB", address))

    yield put
    server.shutdown()
    server.server_close()


def test_download(publish: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish("right")
    weights = tmp_path / "weights"
    assert obstacle(SamTeacher(model="vit_b"), weights) is None
    path = sam_weights.find_or_fetch(SamTeacher(model="vit_b"), weights)
    assert path == weights / "b.pth"
    assert path.read_bytes() == BYTES
    assert list(weights.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644
    assert capsys.readouterr().out == ""
    publish("missing")
    assert sam_weights.find_or_fetch(SamTeacher(model="vit_b"), weights) == path


@pytest.mark.parametrize(
    ("folder", "sha256", "message"),
    [
        ("right", "f" * 64, r"sha256 [0-9a-f]{12}\.\.\., expected ffffffffffff\.\.\.: nothing was kept"),
        ("broken", None, "download failed: the connection broke after 524288 of 1048576 bytes"),
        ("missing", None, "cannot be downloaded: the server returned 404 Not Found"),
    ],
)
def test_a_failed_download_leaves_no_file(
    folder: str, sha256: str | None, message: str, publish: Callable[..., None], tmp_path: Path
) -> None:
    publish(folder, **({"sha256": sha256} if sha256 else {}))
    (tmp_path / "weights").mkdir()
    with pytest.raises(TeacherError, match=message):
        sam_weights.find_or_fetch(SamTeacher(model="vit_b"), tmp_path / "weights", progress=False)
    assert list((tmp_path / "weights").iterdir()) == []


def test_a_full_disk_leaves_no_file(publish: Callable[..., None], small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"0" * 300_000)
    publish("right")
    with pytest.raises(TeacherError, match="No space left"):
        sam_weights.find_or_fetch(SamTeacher(model="vit_b"), small_disk, progress=False)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
