from pathlib import Path

import numpy as np
import pytest
from made_corpus import bytes_of, make, teacher
from PIL import Image

from pretrain_sources.corpus.mask_cache import MaskCache
from pretrain_sources.file_state import FileChangedError
from pretrain_sources.pool import read_pool


def test_masks_of_a_truncated_file_are_drawn_again(pool: Path, tmp_path: Path) -> None:
    calls, kept = tmp_path / "calls", tmp_path / "kept"
    make(pool, tmp_path / "one", kept=kept, calls=str(calls))
    truncated = sorted(kept.rglob("*.parquet"))[3]
    truncated.write_bytes(truncated.read_bytes()[:100])
    make(pool, tmp_path / "two", kept=kept, calls=str(calls))
    assert len(calls.read_text().splitlines()) == 8
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_file_that_changes_during_use_is_detected(pool: Path, tmp_path: Path) -> None:
    images = read_pool(pool).images
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(pool / "frame_04.png")
    with pytest.raises(FileChangedError, match=r"frame_04.png has changed since it was listed"):
        list(MaskCache(teacher(), pool, tmp_path / "kept").over(images))
    with pytest.raises(FileChangedError, match=r"frame_04.png"):
        list(MaskCache(teacher(), pool, tmp_path / "kept").over(images, jobs=2))


def test_masks_drawn_before_exif_rotation_are_not_used(pool: Path, tmp_path: Path) -> None:
    tags, path, calls = Image.Exif(), pool / "frame_02.png", tmp_path / "calls"
    tags[274] = 3
    Image.open(path).save(path, exif=tags.tobytes())
    image, kept = read_pool(pool).images[2], tmp_path / "kept"
    old = (
        kept / image.sha256[:2] / f"{image.sha256}.parquet"
    )  # path of an earlier version, which drew on the image upside down
    old.parent.mkdir(parents=True)
    old.write_bytes(b"drawn on other pixels")
    for _ in range(2):
        MaskCache(teacher(calls=str(calls)), tmp_path, kept).masks_of(image)
    assert len(calls.read_text().splitlines()) == 1
    assert old.read_bytes() == b"drawn on other pixels"
