from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_corpus import bytes_of, make, teacher, writer
from PIL import Image

from pretrain_sources.corpus import (
    CorpusError,
    check_corpus,
    read_corpus,
    read_manifest,
)
from pretrain_sources.corpus import writer as corpus_writer
from pretrain_sources.corpus.mask_cache import MaskCache
from pretrain_sources.corpus.writer import stored_masks
from pretrain_sources.pool import read_pool
from pretrain_sources.recipe import Recipe


def test_a_corpus_has_labels_tables_and_a_manifest(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus")
    corpus = read_corpus(tmp_path / "corpus")
    assert (len(corpus.images), corpus.num_classes) == (7, 10)
    manifest = read_manifest(tmp_path / "corpus")
    assert manifest is not None
    assert (manifest.images, manifest.masks, manifest.refused) == (7, 21, {})
    assert manifest.content_hash == corpus.content_hash
    label = np.asarray(Image.open(corpus.images[0].label))
    assert label.shape == (20, 24)
    assert np.bincount(label.ravel(), minlength=10).tolist() == list(corpus.images[0].class_px[:-1])
    assert manifest.uncovered_frac == pytest.approx((label == 0).mean())
    rows = pd.read_parquet(tmp_path / "corpus" / "masks.parquet")
    assert len(rows) == 21
    assert rows[rows["image"] == "frame_00"]["rank"].tolist() == [1, 2, 3]
    assert Image.open(tmp_path / "corpus" / "contact.png").width > 600
    check_corpus(tmp_path / "corpus")


def test_the_bytes_do_not_depend_on_the_number_of_processes(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "one")
    images = read_pool(pool).images
    masks = MaskCache(teacher(), pool, tmp_path / "kept").over(images, jobs=2)
    writer(tmp_path / "two", pool).write(masks, total=7)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_killed_run_resumes_to_the_same_bytes(pool: Path, tmp_path: Path) -> None:
    calls, kept = tmp_path / "calls", tmp_path / "kept"
    make(pool, tmp_path / "whole", calls=str(tmp_path / "calls of the whole"))
    unbroken = teacher(calls=str(calls), die_after=4)
    masks = MaskCache(unbroken, pool, kept).over(read_pool(pool).images)
    with pytest.raises(KeyboardInterrupt):
        writer(tmp_path / "broken", pool).write(masks, total=7)
    assert read_manifest(tmp_path / "broken") is None
    make(pool, tmp_path / "broken", kept=kept, calls=str(calls))
    assert len(calls.read_text().splitlines()) == 7 + 1  # the fifth call died and was repeated
    assert bytes_of(tmp_path / "broken") == bytes_of(tmp_path / "whole")


def test_the_contact_sheet_names_teacher_and_recipe(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    real = corpus_writer.contact_sheet
    monkeypatch.setattr(
        corpus_writer, "contact_sheet", lambda rows, title, n: titles.append(title) or real(rows, title, n)
    )
    make(pool, tmp_path / "corpus", recipe=Recipe(top_k=4, rank_by="area", overlap="better_wins"))
    assert titles[0].startswith("fake: top 4 by area, better_wins; 7 images, ")


def test_partial_files_of_a_killed_run_are_replaced(pool: Path, tmp_path: Path) -> None:
    for name in ("images/frame_00.png", "labels/frame_01.png"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"torn")
    make(pool, tmp_path / "corpus")
    check_corpus(tmp_path / "corpus")


def test_links_in_a_pool_are_followed(pool: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for path in pool.iterdir():
        (links / path.name).symlink_to(Path("..") / "pool" / path.name)
    make(links, tmp_path / "corpus")
    check_corpus(tmp_path / "corpus")


def test_images_without_label_maps_are_counted_and_listed(pool: Path, tmp_path: Path) -> None:
    (pool / "frame_03.png").write_bytes(b"torn")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(pool / "frame_05.png")
    make(pool, tmp_path / "corpus", recipe=Recipe(min_area_px=21))
    manifest = read_manifest(tmp_path / "corpus")
    assert manifest is not None
    assert (manifest.images, manifest.refused) == (5, {"no mask": 1, "unreadable": 1})
    rows: Any = pd.read_parquet(tmp_path / "corpus" / "images.parquet").set_index("image")
    assert rows.loc["frame_03", "refused"] == "unreadable"
    assert "none of 3 masks has 21 pixels" in rows.loc["frame_05", "why"]
    assert not list((tmp_path / "corpus" / "labels").glob("frame_0[35]*"))
    assert len(read_corpus(tmp_path / "corpus").images) == 5


def test_masks_of_another_size_are_refused(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"none of 7 images got a label map: 7 mask size.*masks of 25 x 21, the image 24 x 20"
    ):
        make(pool, tmp_path / "corpus", wrong_size=True)
    with pytest.raises(CorpusError, match="7 no mask"):
        make(pool, tmp_path / "other", masks=0)
    assert read_manifest(tmp_path / "corpus") is None


def test_relabelling_runs_no_teacher_and_equals_a_new_corpus(pool: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    make(pool, tmp_path / "nine", calls=str(calls))
    other = Recipe(top_k=2, overlap="better_wins", rank_by="area", uncovered="ignore")
    writer(tmp_path / "again", tmp_path / "nine" / "images", other).write(stored_masks(tmp_path / "nine"), total=7)
    assert len(calls.read_text().splitlines()) == 7
    make(pool, tmp_path / "two", recipe=other)
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "two")


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a/../../b.png"])
def test_paths_outside_of_a_corpus_are_refused(name: str, pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus")
    table = pd.read_parquet(tmp_path / "corpus" / "images.parquet")
    table.loc[2, "file"] = name
    table.to_parquet(tmp_path / "corpus" / "images.parquet")
    with pytest.raises(CorpusError, match="is outside of the corpus"):
        read_corpus(tmp_path / "corpus")
    with pytest.raises(CorpusError, match="is outside of the corpus"):
        list(stored_masks(tmp_path / "corpus"))


def test_given_groups_are_kept_in_a_corpus(pool: Path, tmp_path: Path) -> None:
    given = {f"frame_{i:02d}": f"date {i % 3}" for i in range(7)}
    images = read_pool(pool, given).images
    masks = MaskCache(teacher(), pool, tmp_path / "kept").over(images)
    writer(tmp_path / "corpus", pool).write(masks, total=7)
    assert [image.group for image in check_corpus(tmp_path / "corpus")[0].images] == list(given.values())


def test_a_pool_without_a_list_of_groups_uses_numbering_blocks(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus")
    manifest = read_manifest(tmp_path / "corpus")
    assert manifest is not None
    assert not (tmp_path / "corpus" / "images" / "groups.csv").exists()
    assert manifest.pool_hash == read_pool(pool).content_hash
    assert {image.group for image in check_corpus(tmp_path / "corpus")[0].images} == {"frame_#0"}
