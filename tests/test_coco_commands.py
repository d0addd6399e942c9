"""`bench corpus export` and `oracle`, and runs on ready-made masks, from the card to the board and a bundle."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from coco_files import write
from conftest import Bench, write_matrix
from made_corpus import bytes_of
from PIL import Image

from bench.cli import corpora
from pretrain_sources.corpus import read_manifest
from results.record_files import read_records
from results.store import Store

MADE = ("corpus", "make", "--jobs", 1)


def test_a_coco_file_of_one_s_own_is_a_teacher(pool: Path, tmp_path: Path, bench: Bench) -> None:
    def change(made: dict[str, Any]) -> None:
        made["images"].append({"id": 9, "file_name": "elsewhere.png"})
        made["annotations"].append(made["annotations"][0] | {"image_id": 9})
        made["images"][1]["width"] = 25

    path = write(tmp_path / "masks.json", change)
    made = bench(*MADE, "--pool", pool, "--teacher", path, "--out", tmp_path / "c")
    assert made.code == 0, made.err
    lines = made.out.splitlines()
    assert "1 images with 2 masks, 10 classes" in lines[0]
    assert "  refused: 1 images, mask size (listed in images.parquet)" in lines
    assert "  refused: 5 images, no mask (listed in images.parquet)" in lines
    assert "  not used: 1 annotations of images that the pool lacks" in lines
    manifest = read_manifest(tmp_path / "c")
    assert manifest is not None
    assert manifest.left_out == {"annotations of images that the pool lacks": 1}
    assert manifest.device is None
    checked = bench("corpus", "check", tmp_path / "c")
    assert "1 annotations of images that the pool lacks were not used" in checked.out
    bench("corpus", "rerank", tmp_path / "c", "--out", tmp_path / "r", "--top-k", 1)
    again = read_manifest(tmp_path / "r")
    assert again is not None
    assert again.left_out == manifest.left_out


def test_masks_that_change_while_the_pool_is_read_are_refused(
    pool: Path, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "masks.json")

    def read_pool(*args: Any, **options: Any) -> Any:
        write(path, lambda made: made["annotations"].pop())
        return corpora_pool(*args, **options)

    corpora_pool = corpora.read_pool
    monkeypatch.setattr(corpora, "read_pool", read_pool)
    made = bench(*MADE, "--pool", pool, "--teacher", path, "--out", tmp_path / "c")
    assert made.code == 1
    assert "masks.json has sha256 " in made.err


def test_other_manifests_do_not_have_the_field(pool: Path, tmp_path: Path, bench: Bench) -> None:
    assert bench(*MADE, "--pool", pool, "--teacher", "fake_teacher:make", "--out", tmp_path / "c").code == 0
    assert "left_out" not in json.loads((tmp_path / "c" / "manifest.json").read_text())


@pytest.mark.parametrize("teacher", ["felzenszwalb", "fake_teacher:make", "fake_teacher:tied"])
def test_export_and_import_give_the_same_masks_and_label_maps(
    teacher: str, pool: Path, tmp_path: Path, bench: Bench
) -> None:
    (pool / "x").mkdir()
    (pool / "frame_03.png").rename(pool / "x" / "frame_00.png")
    first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "masks.json"
    assert bench(*MADE, "--pool", pool, "--teacher", teacher, "--out", first).code == 0
    exported = bench("corpus", "export", first, "--coco", file)
    assert exported.code == 0, exported.err
    made = bench(*MADE, "--pool", pool, "--teacher", file, "--out", second)
    assert made.code == 0, made.err
    tables = [
        pq.read_table(corpus / "masks.parquet").drop_columns(["prompt", "rank_key"]) for corpus in (first, second)
    ]
    assert tables[0].num_rows
    assert tables[0].equals(tables[1])
    assert bytes_of(first / "labels") == bytes_of(second / "labels")
    assert exported.out.strip() == f"{file}: {tables[0].num_rows} masks of 7 images"
    bench("corpus", "export", second, "--coco", tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()


def test_a_corpus_with_negative_scores_or_without_masks_is_not_exported(
    pool: Path, ready: Path, tmp_path: Path, bench: Bench
) -> None:
    out = tmp_path / "m.json"
    assert "ready has no manifest.json" in bench("corpus", "export", ready, "--coco", out).err
    path = tmp_path / "made" / "masks.parquet"
    table = pd.read_parquet(path)
    table.loc[2, "stability"] = -0.5
    pq.write_table(pq.read_table(path).from_pandas(table, pq.read_schema(path), preserve_index=False), path)
    assert "has a negative score" in bench("corpus", "export", tmp_path / "made", "--coco", out).err
    assert not out.exists()


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    """A target's folder with two frames and their oriented boxes."""
    folder = tmp_path / "target"
    (folder / "unlabelled").mkdir(parents=True)
    (folder / "oriented_boxes").mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (40, 60), dtype=np.uint8)
        pixels[0, 0] = ord(name[0])
        Image.fromarray(pixels).save(folder / "unlabelled" / name)
    boxes = [
        {"category_id": 0, "bbox_xywht": [20.0, 10.0, 8.0, 4.0, 0.0], "difficult": False},
        {"category_id": 1, "bbox_xywht": [30.0, 20.0, 10.0, 4.0, np.pi / 2], "difficult": True},
        {"category_id": 4, "bbox_xywht": [5.0, 5.0, 3.0, 3.0, 0.0], "difficult": False},
    ]
    (folder / "oriented_boxes" / "unlabelled.json").write_text(json.dumps({"a.png": boxes, "b.png": boxes[2:]}))
    return folder


def test_an_oracle_fills_the_oriented_boxes(boxed: Path, tmp_path: Path, bench: Bench) -> None:
    written = bench("corpus", "oracle", boxed)
    assert written.code == 0, written.err
    path = tmp_path / "weights" / "oracle-masks.json"
    left_open = "2 regions that the annotators left open are no masks"
    assert written.out.strip() == f"{path}: 2 masks of 2 images; 1 images have none; {left_open}"
    made = bench(*MADE, "--pool", boxed / "unlabelled", "--recipe", "satir/oracle", "--out", tmp_path / "c")
    assert "  refused: 1 images, no mask (listed in images.parquet)" in made.out
    label = np.array(Image.open(tmp_path / "c" / "labels" / "a.png"))
    assert (label[8:13, 16:25] == 1).all(), "corners in whole pixels, borders included"
    assert (label[15:26, 28:33] == 2).all(), "the angle is in radians, and ranks are the order of the boxes"
    assert np.bincount(label.ravel()).tolist()[1:] == [5 * 9, 11 * 5]
    bench(*MADE, "--pool", boxed / "unlabelled", "--recipe", "satir/oracle/rank-area", "--out", tmp_path / "area")
    assert np.array(Image.open(tmp_path / "area" / "labels" / "a.png"))[20, 30] == 1


def test_the_exported_masks_of_an_oracle_stay_marked(boxed: Path, tmp_path: Path, bench: Bench) -> None:
    bench("corpus", "oracle", boxed)
    bench(*MADE, "--pool", boxed / "unlabelled", "--recipe", "satir/oracle", "--out", tmp_path / "c")
    assert bench("corpus", "export", tmp_path / "c", "--coco", tmp_path / "m.json").code == 0
    again = (*MADE, "--pool", boxed / "unlabelled", "--out", tmp_path / "again")
    refused = bench(*again, "--teacher", tmp_path / "m.json")
    assert refused.code == 1
    assert "says that people annotated its masks: add `oracle: true` beside `kind: coco` in a card" in refused.err
    mine = card(tmp_path / "mine", tmp_path / "m.json", oracle=True)
    assert bench(*again, "--recipe", mine / "card.yaml").code == 0
    assert bytes_of(tmp_path / "again" / "labels") == bytes_of(tmp_path / "c" / "labels")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("[", "is not valid JSON"),
        ("[]", "must map each file name to a list of boxes"),
        ('{"a.png": []}', "has no entry for 1 images of unlabelled/, first b.png"),
        ('{"a.png": [3], "b.png": []}', "a.png: a box needs category_id and the five numbers of bbox_xywht"),
        ('{"a.png": [{"bbox_xywht": [1, 2, 3, 4, NaN]}], "b.png": []}', "must be finite numbers below a million"),
        (None, "it holds the pool's oriented boxes"),
    ],
)
def test_invalid_boxes_are_refused(boxes: str | None, message: str, boxed: Path, bench: Bench) -> None:
    path = boxed / "oriented_boxes" / "unlabelled.json"
    path.unlink() if boxes is None else path.write_text(boxes)
    failed = bench("corpus", "oracle", boxed)
    assert failed.code == 1
    assert message in failed.err


def card(folder: Path, masks: Path, name: str = "mine", **teacher: object) -> Path:
    """A folder with a card and its masks beside it."""
    folder.mkdir()
    shutil.copy(masks, folder / "masks.json")
    recipe = {"teacher": {"kind": "coco", "path": "masks.json", **teacher}}
    fields = {"name": name, "description": "x", "licence": "x", "contact": "x", "training_data": [], "recipe": recipe}
    (folder / "card.yaml").write_text(yaml.safe_dump(fields))
    return folder


def test_from_a_card_to_the_board_and_a_bundle(
    scenes: Path, shipped_protocol: None, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, masks, store = scenes / "scenes" / "unlabelled", tmp_path / "m.json", Store(tmp_path / "store")
    assert bench(*MADE, "--pool", pool, "--teacher", "felzenszwalb", "--out", tmp_path / "c").code == 0
    assert bench("corpus", "export", tmp_path / "c", "--coco", masks).code == 0
    content = json.loads(masks.read_text())
    content["annotations"].append({"id": 10**6, "image_id": 1, "iscrowd": 1, "segmentation": []})
    masks.write_text(json.dumps(content))
    mine = card(tmp_path / "mine", masks)
    matrix = write_matrix(tmp_path, ("satir/oracle", "satir/felzenszwalb", str(mine / "card.yaml")))
    plan = bench("plan", "--matrix", matrix)
    assert "write it with `bench corpus oracle`" in plan.out, "the others run"
    shutil.copy(masks, tmp_path / "weights" / "oracle-masks.json")
    monkeypatch.chdir(tmp_path)
    done = bench("run", "--matrix", matrix, "--executor", "inline")
    assert done.code == 0, done.err
    assert "\n  not used: 1 annotations of crowds\n" in done.out
    records, _ = read_records(store)
    leaks = {record.source: record.leak for record in records}
    assert leaks["mine"] is None
    assert str(leaks["satir/oracle"]).startswith("oracle: people annotated its masks")
    learned = {record.source: record.pretraining.corpus for record in records if record.pretraining}
    assert len(set(learned.values())) == 1, "the same masks give the same label maps"
    board = bench("table").out
    assert "satir/oracle (oracle)" in board
    assert "oracle, never ranked: satir/oracle: people annotated its masks" in board
    ranks = {row["source"]: row["rank"] for row in json.loads(bench("table", "--format", "json").out)}
    assert (ranks["satir/oracle"], ranks["mine"]) == (None, ranks["satir/felzenszwalb"])
    assert bench("submit", "check", mine).code == 0
    bench("data", "manifest", "scenes", "--out", tmp_path / "scenes.json")
    words = ("--manifest", tmp_path / "scenes.json")
    packed = bench("submit", "pack", mine, "--out", tmp_path / "bundles", *words)
    assert packed.code == 0, packed.out
    bundle = tmp_path / "bundles" / "mine"
    assert not (bundle / "masks.json").exists()
    assert yaml.safe_load((bundle / "card.yaml").read_text())["recipe"]["teacher"]["path"] == "masks.json"
    shutil.rmtree(mine)
    beside = bench("submit", "verify", bundle, *words)
    assert "same network as satir/felzenszwalb x tiny r0" in beside.out, "its masks are those, so it is a copy"
    verified = bench("submit", "verify", bundle, *words, "--store", tmp_path / "other")
    assert verified.code == 0, verified.out + verified.err


def test_an_oracle_stays_one_under_other_names(scenes: Path, tmp_path: Path, bench: Bench) -> None:
    masks = tmp_path / "m.json"
    bench(*MADE, "--pool", scenes / "scenes" / "unlabelled", "--teacher", "felzenszwalb", "--out", tmp_path / "c")
    bench("corpus", "export", tmp_path / "c", "--coco", masks)
    mine = card(tmp_path / "mine", masks, "satir/people", oracle=True)
    matrix = write_matrix(tmp_path, (str(mine / "card.yaml"), "satir/people/top-4~shuffled"), replicates=1)
    assert bench("run", "--matrix", matrix, "--executor", "inline").code == 0
    records, _ = read_records(Store(tmp_path / "store"))
    assert [str(record.leak).split(":")[0] for record in records] == ["oracle"] * 2
