import os
import shutil
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from made_corpus import make
from PIL import Image

from pretrain_sources.corpus import (
    CorpusError,
    check_corpus,
    read_corpus,
)
from pretrain_sources.corpus import check as corpus_check
from pretrain_sources.recipe import Recipe

Form = Literal["NFC", "NFD"]


def test_a_ready_made_corpus_is_checked(ready: Path, tmp_path: Path) -> None:
    corpus, _ = check_corpus(ready, num_classes=10)
    made = read_corpus(tmp_path / "made")
    assert corpus.content_hash == made.content_hash
    assert [image.class_px for image in corpus.images] == [image.class_px for image in made.images]
    with pytest.raises(CorpusError, match=r"give the number of classes"):
        check_corpus(ready)
    with pytest.raises(CorpusError, match=r"was not made by"):
        read_corpus(ready)
    with pytest.raises(CorpusError, match=r"no such folder"):
        check_corpus(ready / "nowhere", num_classes=10)
    with pytest.raises(CorpusError, match=r"frame_00.png is a file, not a corpus"):
        check_corpus(ready / "images" / "frame_00.png", num_classes=10)


def problems_are(ready: Path, count: int, *parts: str) -> None:
    """The check reports so many problems in one message, with all of these parts."""
    with pytest.raises(CorpusError) as wrong:
        check_corpus(ready, num_classes=10)
    text = str(wrong.value)
    assert f"{count} problems among 7 images" in text
    for part in parts:
        assert part in text


def test_all_faults_are_reported_at_once(ready: Path) -> None:
    labels = ready / "labels"
    Image.fromarray(np.full((20, 24), 12, np.uint8)).save(labels / "frame_00.png")
    Image.fromarray(np.zeros((10, 24), np.uint8)).save(labels / "frame_01.png")
    (labels / "frame_02.png").unlink()
    (ready / "images" / "frame_03.png").write_bytes(b"torn")
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(labels / "frame_04.png")
    problems_are(
        ready,
        5,
        "frame_00.png (label 12 on 480 px)",
        "labels must be 0..9 or 255",
        "frame_01.png (24x10, its image 24x20)",
        "no label map for this image",
        "frame_03.png (",
        "mask of mode RGB",
    )


def test_a_changed_corpus_is_detected(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus")
    label = tmp_path / "corpus" / "labels" / "frame_02.png"
    Image.fromarray((np.asarray(Image.open(label)) == 0).astype(np.uint8)).save(label)
    with pytest.raises(CorpusError, match=r"labels/frame_02.png\n  -> the label map has changed") as wrong:
        check_corpus(tmp_path / "corpus")
    assert "1 problem among 7 images" in str(wrong.value)
    (tmp_path / "corpus" / "images" / "frame_01.png").unlink()
    with pytest.raises(CorpusError, match="images are missing"):
        check_corpus(tmp_path / "corpus")
    table = pd.read_parquet(tmp_path / "corpus" / "images.parquet")
    table.loc[2, "label_sha256"] = "0" * 64
    table.to_parquet(tmp_path / "corpus" / "images.parquet")
    with pytest.raises(CorpusError, match=r"images.parquet does not match manifest.json"):
        read_corpus(tmp_path / "corpus")
    (tmp_path / "corpus" / "manifest.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"cannot read .*manifest.json"):
        check_corpus(tmp_path / "corpus")


def test_unchanged_files_are_not_read_again(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, read = tmp_path / "cache.json", list[str]()
    real = corpus_check.read_label
    monkeypatch.setattr(corpus_check, "read_label", lambda data, name: read.append(name) or real(data, name))
    first = check_corpus(ready, num_classes=10, cache=cache)
    assert len(read) == 7
    assert check_corpus(ready, num_classes=10, cache=cache) == first
    assert len(read) == 7, "the cache must answer"
    label = ready / "labels" / "frame_00.png"
    before = label.stat()
    label.write_bytes(b"x" * before.st_size)
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size and time, as `touch -r` leaves them
    with pytest.raises(CorpusError, match="1 problem among 7"):
        check_corpus(ready, num_classes=10, cache=cache)


def test_unmatched_files_are_noted(ready: Path) -> None:
    labels = ready / "labels"
    shutil.copy(labels / "frame_00.png", labels / "gone.png")
    (labels / "frame_01.png").rename(labels / "frame_01.PNG")
    (ready / "images" / "readme.md").write_text("x")
    notes = check_corpus(ready, num_classes=10)[1]
    assert notes == [
        "1 files are not images by their suffix and are skipped (.md) (first: readme.md)",
        "1 files in ready/labels match the list up to Unicode form or case of the suffix (first: frame_01.PNG)",
        "1 files in ready/labels belong to no image and are not used (first: gone.png)",
    ]
    shutil.copy(labels / "frame_01.PNG", labels / "frame_01.png")
    with pytest.raises(CorpusError, match=r"labels holds frame_01.PNG and frame_01.png, which"):
        check_corpus(ready, num_classes=10)


@pytest.mark.parametrize(("image", "label"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_label_maps_are_found_in_either_unicode_form(image: Form, label: Form, ready: Path) -> None:
    name = "caf\u00e9"
    (ready / "images" / "frame_02.png").rename(ready / "images" / f"{unicodedata.normalize(image, name)}.png")
    (ready / "labels" / "frame_02.png").rename(ready / "labels" / f"{unicodedata.normalize(label, name)}.png")
    found, notes = check_corpus(ready, num_classes=10)
    assert len(found.images) == 7
    assert "1 files in ready/labels match" in notes[0]


def test_misleading_label_maps_are_refused(ready: Path) -> None:
    labels, tags = ready / "labels", Image.Exif()
    tags[274] = 3
    maps = [Image.open(path).copy() for path in sorted(labels.iterdir())]
    maps[0].save(labels / "frame_00.png", "JPEG")
    maps[1].save(labels / "frame_01.png", exif=tags.tobytes())
    maps[2].save(labels / "frame_02.png", "TIFF", save_all=True, append_images=[maps[3]])
    maps[4].save(ready / "images" / "frame_04.png", "TIFF", save_all=True, append_images=[maps[3]])
    problems_are(
        ready,
        4,
        "frame_00.png (JPEG, whose compression can change labels)",
        "frame_01.png (mask with EXIF orientation 3",
        "mogrify -auto-orient FILE",
        "frame_02.png (2 pages or frames",
        "frame_04.png (2 pages or frames",
        "the image cannot be used: save each as its own file",
    )


def test_conversions_are_noted(ready: Path, tmp_path: Path) -> None:
    image, tags = ready / "images" / "frame_03.png", Image.Exif()
    tags[274] = 3
    Image.open(image).save(image, exif=tags.tobytes())
    Image.fromarray(np.full((20, 24), 255, np.uint8)).save(ready / "labels" / "frame_05.png")
    for _ in range(2):
        assert check_corpus(ready, num_classes=10, cache=tmp_path / "cache.json")[1] == [
            "1 images are rotated or mirrored by their EXIF orientation (first: frame_03)",
            "1 label maps hold only ignore (first: frame_05)",
        ]


@pytest.mark.parametrize(("value", "message"), [(255, "no class"), (0, "only class 0")])
def test_label_maps_of_one_class_are_refused(value: int, message: str, ready: Path) -> None:
    for path in (ready / "labels").iterdir():
        drawn = np.asarray(Image.open(path)) > 0
        Image.fromarray(np.where(drawn, 255, value).astype(np.uint8)).save(path)
    with pytest.raises(CorpusError, match=rf"nothing to learn: its label maps hold {message} besides 255"):
        check_corpus(ready, num_classes=10)


def test_a_made_corpus_of_one_class_is_noted(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus", Recipe(top_k=2, uncovered="ignore"), masks=1)
    note = "nothing to learn: its label maps hold only class 1 besides 255 (ignore)"
    assert check_corpus(tmp_path / "corpus")[1] == [note]
