"""A damaged cache never changes a result and never raises: it is rebuilt."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spoiled import damaged

from bench.targets import open_target
from bench.targets.frames import examine_all
from pretrain_sources.corpus import check_corpus
from pretrain_sources.corpus.mask_cache import MaskCache
from pretrain_sources.pool import read_pool
from pretrain_sources.recipe import FelzenszwalbTeacher
from safe_io.files import sealed, unsealed


@given(st.binary(max_size=200), st.data())
def test_unsealed_detects_any_flip_cut_or_other_version(data: bytes, draw: st.DataObject) -> None:
    held = sealed(data, "a 1")
    assert unsealed(held, "a 1") == data
    place, bit = draw.draw(st.integers(0, len(held) - 1)), draw.draw(st.integers(0, 7))
    flipped = bytearray(held)
    flipped[place] ^= 1 << bit
    for bad in (bytes(flipped), held[:place], held + b"\0", b""):
        with pytest.raises(ValueError, match="damaged"):
            unsealed(bad, "a 1")
    with pytest.raises(ValueError, match="version a 2"):
        unsealed(held, "a 2")


Read = Callable[[], Any]  # reads through a cache


def frames(folder: Path, scenes: Path) -> tuple[Path, Read]:
    listed = [frame for split in open_target("scenes", scenes).splits.values() for frame in split][:4]
    cache = folder / "scan.json"
    return cache, functools.partial(examine_all, listed, 21, cache, lambda *_: None)


def pool(folder: Path, scenes: Path) -> tuple[Path, Read]:
    cache = folder / "pool.json"
    return cache, lambda: read_pool(scenes / "scenes" / "unlabelled", cache=cache).images[:5]


def corpus(folder: Path, scenes: Path) -> tuple[Path, Read]:
    for name, frame in enumerate(open_target("scenes", scenes).splits["test"][:4]):
        for kind, path in (("images", frame.image), ("labels", frame.label)):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{name}{path.suffix}").symlink_to(path)
    cache = folder / "corpora.json"
    return cache, lambda: check_corpus(folder, num_classes=21, cache=cache)


def hashes(folder: Path, scenes: Path) -> tuple[Path, Read]:
    cache, read = corpus(folder, scenes)
    return cache.with_name("corpora-images.json"), read


def masks(folder: Path, scenes: Path) -> tuple[Path, Read]:
    image = read_pool(scenes / "scenes" / "unlabelled").images[0]
    made = MaskCache(FelzenszwalbTeacher(), folder, folder / "kept")

    def read() -> tuple[tuple[int, int], list[Any]]:
        drawn = made.masks_of(image).masks
        return drawn.size, drawn.table.to_pylist()  # type: ignore[union-attr]

    return folder / "kept" / image.sha256[:2] / f"{image.sha256}.parquet", read


@pytest.mark.parametrize("kind", [frames, pool, corpus, hashes, masks])
def test_a_damaged_cache_never_changes_what_is_read_and_never_raises(
    kind: Callable[[Path, Path], tuple[Path, Read]], scenes: Path, tmp_path: Path
) -> None:
    cache, read = kind(tmp_path, scenes)
    whole, sound = read(), cache.read_bytes()
    for bad in several(sound):
        cache.write_bytes(bad)
        assert read() == whole
        assert cache.read_bytes() == sound, "it is rebuilt"


def several(sound: bytes) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    bad = (damaged(sound, rng) for _ in range(25))
    yield from (one for one in (*bad, b"", b"[]", sealed(sound, "another 1")) if one != sound)
