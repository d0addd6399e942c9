import shutil
from pathlib import Path

import pytest
from examples import cell, record, record_paths, store_of, write

from results import load_table


def test_copied_run_is_not_another_replicate(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)))
    folder = record_paths(store)[0].parent
    shutil.copytree(folder, folder.with_name(f"{folder.name}-backup"))
    table = load_table(tmp_path)
    assert len(table) == 3
    assert "copied or renamed" in table.attrs["unreadable"][0]


def test_unreadable_record_is_listed_with_and_without_cache(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(2)))
    record_paths(store)[0].write_text("{")
    for _ in range(2):
        table = load_table(tmp_path)
        assert len(table) == 1
        assert "record.json" in table.attrs["unreadable"][0]


def test_missing_store_suggests_a_command(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="bench run --matrix demo"):
        load_table(tmp_path / "nowhere")


def test_run_without_evidence_is_left_out(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)))
    (record_paths(store)[0].parent / "evidence.npz").unlink()
    table = load_table(tmp_path)
    assert len(table) == 2
    assert "evidence.npz is missing" in table.attrs["unreadable"][0]
    write(store, record(0, source="none", cell="a" * 64))
    away = record_paths(store)[0].parent / "evidence.npz"
    moved = away.rename(tmp_path / "away")
    assert len(load_table(tmp_path)) == 2
    moved.rename(away)  # the record itself has not changed
    assert len(load_table(tmp_path)) == 3
