from pathlib import Path

import pandas as pd
import pytest
from examples import evidence, record

from results import load_table
from results.record import RunRecord
from results.store import Store
from results.table import board


def cell(source: str, identity: str, seeds: range, replicates: int = 3, **changes: object) -> list[RunRecord]:
    return [
        record(i, seed, source=source, cell=identity * 64, replicates=replicates, **changes)
        for i, seed in enumerate(seeds)
    ]


def store_of(folder: Path, *cells: list[RunRecord]) -> Store:
    store = Store(folder)
    for runs in cells:
        for run in runs:
            store.write_record(run)
    return store


def rows(folder: Path) -> pd.DataFrame:
    return board(load_table(folder)).set_index(["source", "cell"])


def test_ranks_by_the_mean_over_replicates(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(10, 13)))
    table = board(load_table(tmp_path))
    assert table["miou"].is_monotonic_decreasing
    assert table["rank"].tolist() == [1, 2]
    assert (table["miou_low"] < table["miou"]).all()
    assert (table["n"] == 3).all()


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


def test_results_on_other_data_are_stale(tmp_path: Path) -> None:
    later = "2026-02-01T00:00:00+00:00"
    store_of(
        tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(3), target_hash="u" * 64, finished=later)
    )
    table = rows(tmp_path)
    assert table.loc[("none", "a" * 64), "status"] == "stale"
    assert table.loc[("imagenet", "b" * 64), "rank"] == 1


def test_short_protocols_are_not_ranked(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3), ranked=False))
    assert rows(tmp_path)["rank"].isna().all()


def test_a_new_run_never_changes_another_cells_row(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)))
    before = rows(tmp_path).loc[("none", "a" * 64)].drop("rank")
    store.write_record(record(0, 99, source="imagenet", cell="b" * 64))
    after = rows(tmp_path).loc[("none", "a" * 64)].drop("rank")
    pd.testing.assert_series_equal(before, after, check_names=False)


def test_the_cache_follows_the_records(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(2)))
    first = load_table(tmp_path)
    pd.testing.assert_frame_equal(load_table(tmp_path), first, check_dtype=False)
    store.write_record(record(2, source="none", cell="a" * 64))
    assert len(load_table(tmp_path)) == 3
    assert len(list(tmp_path.glob("cache/*.parquet"))) == 1


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


def test_evidence_is_not_needed_for_the_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_record(record(), evidence(0))
    assert load_table(tmp_path)["miou"].iloc[0] == record().scores.miou  # type: ignore[union-attr]
