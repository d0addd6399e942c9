import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from examples import cell, record, record_paths, store_of, write
from pyarrow import parquet
from spoiled import ODD_FILES, damaged, in_place_of

from results import load_table, record_files, table_cache
from results.record_files import write_record
from results.store import Store
from safe_io.files import SEAL_BYTES, sealed


def test_the_cache_follows_the_records(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(2)))
    first = load_table(tmp_path)
    pd.testing.assert_frame_equal(load_table(tmp_path), first)
    write(store, record(2, source="none", cell="a" * 64))
    write(store, record(0, 7, source="none", cell="a" * 64))  # replaces one
    again = load_table(tmp_path)
    assert len(again) == 3
    shutil.rmtree(tmp_path / "cache")
    pd.testing.assert_frame_equal(load_table(tmp_path), again)
    assert len(list(tmp_path.glob("cache/runs-*"))) == 1


def test_cache_of_failures_accepts_measured_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    nothing = dict.fromkeys(("scores", "tuning", "provenance", "evidence_sha256", "normalisation"))
    write_record(store, record(9, status="failed", reason="why", **nothing))
    assert load_table(tmp_path)["miou"].isna().all()
    write(store, record(0, source="none", cell="a" * 64))
    table = load_table(tmp_path)
    assert sorted(table["status"]) == ["failed", "ok"]
    assert table["class_iou"].notna().sum() == 1


def test_unchanged_records_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(3)))
    load_table(tmp_path)
    read: list[Path] = []
    real = record_files._read
    monkeypatch.setattr(record_files, "_read", lambda store, folder: read.append(folder) or real(store, folder))
    write(store, record(3, source="none", cell="a" * 64))
    assert len(load_table(tmp_path)) == 7
    shutil.rmtree(record_paths(store)[0].parent)
    assert len(load_table(tmp_path)) == 6
    assert [folder.name[:2] for folder in read] == ["r3"]


def test_truncated_cache_is_ignored(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)))
    load_table(tmp_path)
    [cache] = tmp_path.glob("cache/runs-*")
    cache.write_bytes(cache.read_bytes()[:100])
    assert len(load_table(tmp_path)) == 3


@pytest.mark.parametrize("times", [60, pytest.param(1000, marks=pytest.mark.stress)])
def test_damaged_cache_never_changes_the_board(times: int, tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(10, 13)))
    whole = load_table(tmp_path)
    [cache] = tmp_path.glob("cache/runs-*")
    sound, rng = cache.read_bytes(), np.random.default_rng(0)
    for _ in range(times):
        if (bad := damaged(sound, rng)) == sound:
            continue
        cache.write_bytes(bad)
        pd.testing.assert_frame_equal(load_table(tmp_path), whole)
        assert cache.read_bytes() == sound, "the cache was rebuilt"


def test_cache_of_other_columns_or_version_is_rebuilt(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)))
    whole = load_table(tmp_path)
    [cache] = tmp_path.glob("cache/runs-*")
    sound = cache.read_bytes()
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"source": ["none"]}), buffer)
    for odd in (
        buffer.getvalue(),
        sealed(buffer.getvalue(), table_cache._VERSION),
        sealed(sound[SEAL_BYTES:], "runs 0"),
        b"",
    ):
        cache.write_bytes(odd)
        pd.testing.assert_frame_equal(load_table(tmp_path), whole)
        assert cache.read_bytes() == sound


@pytest.mark.parametrize("odd", ODD_FILES)
def test_odd_file_in_place_of_the_cache(odd: str, tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)))
    whole = load_table(tmp_path)
    [cache] = tmp_path.glob("cache/runs-*")
    in_place_of(cache, ODD_FILES[odd])
    pd.testing.assert_frame_equal(load_table(tmp_path), whole)
