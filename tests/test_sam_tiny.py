"""sam-tiny: its training; it is never labelled as Meta's SAM, nor ranked on frames that it was trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import Bench
from examples import record, write
from safetensors import safe_open
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

from bench.cli import corpora
from bench.plan.matrix import load_matrix
from bench.sam_tiny.__main__ import Training, begin, main, unlabelled
from bench.sam_tiny.learn import losses_of
from bench.sam_tiny.pictures import LEAST_PX, picture
from bench.scenes import draw
from pretrain_sources.recipe import META_MODELS, SAM_TINY, Recipe, SamTeacher
from pretrain_sources.teachers import identity, open_teacher
from pretrain_sources.teachers.sam_tiny import SIDE, STRIDE, build
from pretrain_sources.teachers.sam_weights import SHIPPED, load_tensors
from results import load_table
from results.board import board
from results.store import Store

WEIGHTS = SHIPPED[SAM_TINY]


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    """A rendered frame (480, 640) that training never uses."""
    return draw("labelled", 3, (480, 640), seed=987).thermal


# -- shipped weights -----------------------------------------------------------------------------------------------------


def test_the_file_is_small_half_precision_and_fits() -> None:
    assert WEIGHTS.stat().st_size <= 16_000_000
    with safe_open(WEIGHTS, "pt") as file:
        assert all(file.get_tensor(name).dtype in (torch.float16, torch.int64) for name in file.keys())  # noqa: SIM118
    build().load_state_dict(load_tensors(WEIGHTS))  # strict


def test_segment_anything_accepts_it_unchanged(frame: np.ndarray) -> None:
    model = build()
    model.load_state_dict(load_tensors(WEIGHTS))
    colour = np.repeat(frame[..., None], 3, axis=2)
    predictor = SamPredictor(model)
    predictor.set_image(colour)
    masks, scores, low = predictor.predict(np.array([[320, 240]]), np.ones(1), multimask_output=True)
    assert masks.shape == (3, 480, 640)
    assert low.shape == (3, SIDE // 2, SIDE // 2)
    assert ((scores > 0) & (scores < 1.2)).all()
    shipped = corpora.recipe_of("satir/sam-tiny", None, {}).teacher
    assert isinstance(shipped, SamTeacher)
    shipped = shipped.model_copy(update={"points_per_side": 8})
    words = "points_per_side", "pred_iou_thresh", "stability_score_thresh", "stability_score_offset"
    settings = shipped.model_dump(include=set(words))
    drawn = SamAutomaticMaskGenerator(model, **settings).generate(colour)
    ours = open_teacher(shipped, Path("nowhere"))(frame)
    assert len(drawn) == len(ours.masks) >= 3
    for theirs, mask in zip(drawn, ours.masks, strict=True):
        assert (theirs["segmentation"] & mask).sum() >= 0.99 * (theirs["segmentation"] | mask).sum()


# -- labels and leaks -------------------------------------------------------------------------------------------------------


def test_its_masks_are_never_called_satir() -> None:
    sources = {cell.source for cell in load_matrix("soda-settings", teacher="sam-tiny").cells}
    assert "satir/sam-tiny" in sources
    assert "satir/sam-tiny/top-4" in sources
    assert "satir" not in sources
    assert identity(SamTeacher(model=SAM_TINY), Path("nowhere"))["model"] == SAM_TINY
    assert SAM_TINY not in META_MODELS
    description = load_matrix("soda-settings", teacher="sam-tiny").cards["satir/sam-tiny"].description
    assert "not Meta's SAM" in " ".join(description.split())


def test_its_name_selects_its_settings() -> None:
    named = corpora.recipe_of("satir", "sam", {"top_k": 4}, checkpoint="sam-tiny")
    card = corpora.recipe_of("satir/sam-tiny", None, {"top_k": 4})
    assert named == card
    assert isinstance(named.teacher, SamTeacher)
    assert named.teacher.model == SAM_TINY
    assert Recipe().teacher.model == "vit_h"  # type: ignore[union-attr]


def test_a_leaked_cell_is_shown_without_rank(tmp_path: Path, bench: Bench) -> None:
    store = Store(tmp_path / "store")
    for i in range(3):
        write(store, record(i, source="none", cell="a" * 64))
        write(store, record(i, seed=i + 10, source="satir/sam-tiny", cell="b" * 64, leak="it has seen the test"))
    rows = board(load_table(tmp_path / "store")).set_index("source")
    assert rows.loc["none", "rank"] == 1
    assert rows["rank"].isna()["satir/sam-tiny"]
    assert rows["miou"].notna().all()
    out = bench("table").out
    assert "satir/sam-tiny (LEAK)" in out
    assert "LEAK, never ranked: satir/sam-tiny: it has seen the test" in out


# -- training --------------------------------------------------------------------------------------------------------------


def test_a_picture_is_a_function_of_its_place(hit_uav: Path) -> None:
    real = unlabelled(hit_uav / "hit-uav" / "unlabelled")[:5]
    for frames in (real, []):
        for step in range(8):
            one, two = (picture(frames, 3, step, 1) for _ in range(2))
            assert (one.thermal == two.thermal).all()
            assert (one.masks == two.masks).all()
            assert max(one.thermal.shape) == SIDE
            assert one.masks.shape[1:] == one.thermal.shape
            assert one.masks.sum((1, 2)).min() >= LEAST_PX / 2
            assert (one.weights > 0).all()
    assert (picture([], 3, 0, 0).thermal[:50, :50] != picture([], 3, 1, 0).thermal[:50, :50]).any()


def test_labelled_frames_are_refused(hit_uav: Path) -> None:
    for split in ("train", "val", "test"):
        done = run(Path("nowhere"), "--real", hit_uav / "hit-uav" / "images" / split)
        assert done.exit_code == 1
        assert "labelled frames of hit-uav" in done.output


def run(out: Path, *words: object) -> Result:
    return CliRunner().invoke(main, [str(out), "--batch", "1", "--prompts", "3", *map(str, words)])


def test_a_stopped_training_resumes_to_the_same_weights(wheel: None, tmp_path: Path) -> None:
    assert run(tmp_path / "whole", "--steps", 3).exit_code == 0
    assert run(tmp_path / "parts", "--steps", 3, "--stop", 1).exit_code == 0
    assert not (tmp_path / "parts" / "sam_tiny.safetensors").exists()
    assert run(tmp_path / "parts", "--steps", 3).exit_code == 0
    whole, parts = (load_tensors(tmp_path / name / "sam_tiny.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    before = begin(0, Path("nowhere")).state_dict()
    moved = [name for name in whole if not torch.equal(whole[name], before[name].to(whole[name].dtype))]
    assert any(name.startswith("mask_decoder") for name in moved)
    assert not any("running" in name for name in moved), "the statistics of batch normalisation are ImageNet's"


def test_attention_is_initialised_near_the_point(wheel: None) -> None:
    model = begin(0, Path("nowhere"))
    cells = torch.arange(0, (SIDE // STRIDE) ** 2, 97)
    rows, columns = cells // (SIDE // STRIDE), cells % (SIDE // STRIDE)
    points = torch.stack([columns + 0.5, rows + 0.5], 1)[:, None] * STRIDE, torch.ones(len(cells), 1, dtype=torch.int)
    sparse, _ = model.prompt_encoder(points=points, boxes=None, masks=None)
    where = model.prompt_encoder.get_dense_pe().flatten(2)[0].T
    for layer in model.mask_decoder.transformer.layers:
        for attention in (layer.cross_attn_image_to_token, layer.cross_attn_token_to_image):
            fit = attention.k_proj(sparse[:, 0]) @ attention.q_proj(where).T
            own = fit.gather(1, cells[:, None])
            assert (fit < own).float().mean() > 0.9, "random matrices would give a half"


def test_the_loss_falls_on_one_image(wheel: None) -> None:
    training = Training(begin(0, Path("nowhere")))
    first = losses_of(training.model, [], 0, 500, [0], 4)[0].item()
    for group in training.optimizer.param_groups:
        group["lr"] = 1e-3
    for _ in range(8):
        training.optimizer.zero_grad()
        loss, _ = losses_of(training.model, [], 0, 500, [0], 4)
        loss.backward()
        training.optimizer.step()
    assert loss.item() < 0.9 * first
