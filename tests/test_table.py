import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from examples import evidence, record, write
from pyarrow import parquet
from spoiled import ODD_FILES, in_place_of

from results import load_table, table
from results.record import RunRecord
from results.store import Store
from results.table import board, constant_note
from safe_files import SEAL_BYTES, sealed


def cell(source: str, identity: str, seeds: range, replicates: int = 3, **changes: Any) -> list[RunRecord]:
    return [
        record(i, seed, source=source, cell=identity * 64, replicates=replicates, **changes)
        for i, seed in enumerate(seeds)
    ]


def store_of(folder: Path, *cells: list[RunRecord]) -> Store:
    store = Store(folder)
    for runs in cells:
        for run in runs:
            write(store, run)
    return store


def rows(folder: Path) -> Any:
    return board(load_table(folder)).set_index(["source", "cell"])


def test_ranks_by_the_mean_over_replicates(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(10, 13)))
    table = board(load_table(tmp_path))
    assert table["miou"].is_monotonic_decreasing
    assert table["rank"].tolist() == [1, 2]
    assert (table["miou_low"] < table["miou"]).all()
    assert (table["n"] == 3).all()


def test_what_one_class_everywhere_scores_is_told_from_evidence_that_is_whole(tmp_path: Path) -> None:
    runs = [record(0, status="failed", reason="no"), *cell("none", "a", range(1, 3))]
    truth = evidence(2).confusion.sum((0, 2))
    told = (
        f"Predicting '{record().classes[truth.argmax()]}' everywhere scores {truth.max() / truth.sum() / 3:.4f} mIoU."
    )
    for torn, wanted in ((1, told), (2, None)):
        store = store_of(tmp_path / str(torn), runs)
        for run in runs[1 : 1 + torn]:
            (store.folder_of(run) / "evidence.npz").write_bytes(b"torn")
        assert constant_note(load_table(store.root)) == wanted


def test_a_cell_that_lost_replicates_is_not_ranked(tmp_path: Path) -> None:
    lost = [
        *cell("none", "a", range(2)),
        record(2, source="none", cell="a" * 64, status="diverged", reason="not finite"),
    ]
    store_of(tmp_path, lost, cell("imagenet", "b", range(3)))
    row = rows(tmp_path).loc[("none", "a" * 64)]
    assert row["status"] == "partial"
    assert pd.isna(row["rank"])
    assert "1 diverged of 3: not finite" in row["reason"]


def test_a_cell_that_is_not_finished_is_not_ranked(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(2)))
    row = rows(tmp_path).loc[("none", "a" * 64)]
    assert (row["status"], row["n"]) == ("incomplete", 2)
    assert pd.isna(row["rank"])
    assert row["miou_low"] is None or pd.isna(row["miou_low"])


def test_two_identities_of_one_name_are_never_mixed(tmp_path: Path) -> None:
    old = cell("none", "a", range(3))
    new = cell("none", "b", range(3, 6), finished="2026-02-01T00:00:00+00:00")
    store_of(tmp_path, old, new)
    table = rows(tmp_path)
    assert table.loc[("none", "a" * 64), "status"] == "stale"
    assert table.loc[("none", "b" * 64), "status"] == "ok"
    assert table["n"].tolist() == [3, 3]


LATER = "2026-02-01T00:00:00+00:00"


def test_what_measured_nothing_replaces_nothing(tmp_path: Path) -> None:
    """A later run on a machine without the weights skips under another identity; what was measured stands."""
    skipped = cell("imagenet", "b", range(3), status="skipped", finished=LATER)
    store_of(tmp_path, cell("imagenet", "a", range(3)), skipped)
    table = rows(tmp_path)
    assert table.loc[("imagenet", "a" * 64), ["status", "rank"]].tolist() == ["ok", 1]
    assert table.loc[("imagenet", "b" * 64), "status"] == "stale"


@pytest.mark.parametrize(
    "other",
    [{"target_hash": "u" * 64}, {"protocol_hash": "q" * 64}, {"result_version": "final 2"}, {"train_frac": 0.1}],
)
def test_only_what_is_comparable_is_ranked_together(other: dict[str, Any], tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(10, 13), finished=LATER, **other))
    assert rows(tmp_path)["rank"].tolist() == [1, 1]
    assert rows(tmp_path)["status"].tolist() == ["ok", "ok"]


def test_a_copied_run_is_not_one_more_replicate(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)))
    folder = store.record_paths()[0].parent
    shutil.copytree(folder, folder.with_name(f"{folder.name}-backup"))
    table = load_table(tmp_path)
    assert len(table) == 3
    assert "copied or renamed" in table.attrs["unreadable"][0]


def test_short_protocols_are_not_ranked(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3), ranked=False))
    assert rows(tmp_path)["rank"].isna().all()


def test_a_new_run_never_changes_another_cells_row(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)))
    before = rows(tmp_path).loc[("none", "a" * 64)].drop("rank")
    write(store, record(0, 99, source="imagenet", cell="b" * 64))
    after = rows(tmp_path).loc[("none", "a" * 64)].drop("rank")
    pd.testing.assert_series_equal(before, after, check_names=False)


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


def test_a_cache_of_failures_alone_takes_measured_runs_in(tmp_path: Path) -> None:
    store = Store(tmp_path)
    nothing = dict.fromkeys(("scores", "tuning", "provenance", "evidence_sha256", "normalisation"))
    store.write_record(record(9, status="failed", reason="why", **nothing))
    assert load_table(tmp_path)["miou"].isna().all()
    write(store, record(0, source="none", cell="a" * 64))
    table = load_table(tmp_path)
    assert sorted(table["status"]) == ["failed", "ok"]
    assert table["class_iou"].notna().sum() == 1


def test_records_that_have_not_changed_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(3)))
    load_table(tmp_path)
    read: list[Path] = []
    real = Store._read
    monkeypatch.setattr(Store, "_read", lambda self, folder: read.append(folder) or real(self, folder))
    write(store, record(3, source="none", cell="a" * 64))
    assert len(load_table(tmp_path)) == 7
    shutil.rmtree(store.record_paths()[0].parent)
    assert len(load_table(tmp_path)) == 6
    assert [folder.name[:2] for folder in read] == ["r3"]


def test_an_unreadable_record_is_named_with_and_without_the_cache(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(2)))
    store.record_paths()[0].write_text("{")
    for _ in range(2):
        table = load_table(tmp_path)
        assert len(table) == 1
        assert "record.json" in table.attrs["unreadable"][0]


def test_an_empty_store_gives_an_empty_board(tmp_path: Path) -> None:
    assert board(load_table(tmp_path)).empty


def test_a_missing_store_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="bench run --matrix demo"):
        load_table(tmp_path / "nowhere")


def test_a_run_without_its_evidence_does_not_count(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)))
    (store.record_paths()[0].parent / "evidence.npz").unlink()
    table = load_table(tmp_path)
    assert len(table) == 2
    assert "evidence.npz is missing" in table.attrs["unreadable"][0]
    write(store, record(0, source="none", cell="a" * 64))
    away = store.record_paths()[0].parent / "evidence.npz"
    moved = away.rename(tmp_path / "away")
    assert len(load_table(tmp_path)) == 2
    moved.rename(away)  # the record itself has not changed
    assert len(load_table(tmp_path)) == 3


def test_a_torn_cache_is_no_cache(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)))
    load_table(tmp_path)
    [cache] = tmp_path.glob("cache/runs-*")
    cache.write_bytes(cache.read_bytes()[:100])
    assert len(load_table(tmp_path)) == 3


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The data after a bit flip, a cut, or a write that was torn and left zeros."""
    place = int(rng.integers(len(data)))
    kinds = (
        data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :],
        data[:place],
        data[:place] + bytes(len(data) - place),
    )
    return kinds[int(rng.integers(3))]


@pytest.mark.parametrize("times", [60, pytest.param(1000, marks=pytest.mark.stress)])
def test_a_damaged_cache_never_changes_the_board_and_never_raises(times: int, tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(10, 13)))
    whole = load_table(tmp_path)
    [cache] = tmp_path.glob("cache/runs-*")
    sound, rng = cache.read_bytes(), np.random.default_rng(0)
    for _ in range(times):
        if (bad := damaged(sound, rng)) == sound:
            continue
        cache.write_bytes(bad)
        pd.testing.assert_frame_equal(load_table(tmp_path), whole)
        assert cache.read_bytes() == sound, "it is made anew"


def test_a_cache_of_other_columns_or_another_version_is_made_anew(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)))
    whole = load_table(tmp_path)
    [cache] = tmp_path.glob("cache/runs-*")
    sound = cache.read_bytes()
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"source": ["none"]}), buffer)
    for odd in (
        buffer.getvalue(),
        sealed(buffer.getvalue(), table._VERSION),
        sealed(sound[SEAL_BYTES:], "runs 0"),
        b"",
    ):
        cache.write_bytes(odd)
        pd.testing.assert_frame_equal(load_table(tmp_path), whole)
        assert cache.read_bytes() == sound


@pytest.mark.parametrize("odd", ODD_FILES)
def test_whatever_stands_in_place_of_the_cache(odd: str, tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)))
    whole = load_table(tmp_path)
    [cache] = tmp_path.glob("cache/runs-*")
    in_place_of(cache, ODD_FILES[odd])
    pd.testing.assert_frame_equal(load_table(tmp_path), whole)
