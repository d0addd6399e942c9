from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from examples import cell, evidence, record, store_of, write

from results import load_table
from results.board import board, constant_note
from results.replicate_scores import samples

LATER = "2026-02-01T00:00:00+00:00"


def rows(folder: Path) -> Any:  # a DataFrame, whose rows are of any type
    return board(load_table(folder)).set_index(["source", "cell"])


def test_ranks_by_the_mean_over_replicates(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(10, 13)))
    table: Any = board(load_table(tmp_path))
    assert table["miou"].is_monotonic_decreasing
    assert table["rank"].tolist() == [1, 2]
    assert (table["miou_low"] < table["miou"]).all()
    assert (table["n"] == 3).all()


def test_constant_note_skips_damaged_evidence(tmp_path: Path) -> None:
    runs = [record(0, status="failed", reason="no"), *cell("none", "a", range(1, 3))]
    truth = evidence(2).confusion.sum((0, 2))
    note = (
        f"Predicting '{record().classes[truth.argmax()]}' everywhere scores {truth.max() / truth.sum() / 3:.4f} mIoU."
    )
    for damaged, wanted in ((1, note), (2, None)):
        store = store_of(tmp_path / str(damaged), runs)
        for run in runs[1 : 1 + damaged]:
            (store.folder_of(run) / "evidence.npz").write_bytes(b"torn")
        assert constant_note(load_table(store.root)) == wanted


def test_partial_cell_is_not_ranked(tmp_path: Path) -> None:
    lost = [
        *cell("none", "a", range(2)),
        record(2, source="none", cell="a" * 64, status="diverged", reason="not finite"),
    ]
    store_of(tmp_path, lost, cell("imagenet", "b", range(3)))
    row = rows(tmp_path).loc[("none", "a" * 64)]
    assert row["status"] == "partial"
    assert pd.isna(row["rank"])
    assert "1 diverged of 3: not finite" in row["reason"]


def test_incomplete_cell_is_not_ranked(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(2)))
    row = rows(tmp_path).loc[("none", "a" * 64)]
    assert (row["status"], row["n"]) == ("incomplete", 2)
    assert pd.isna(row["rank"])
    assert row["miou_low"] is None or pd.isna(row["miou_low"])


def test_identities_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    old = cell("none", "a", range(3))
    new = cell("none", "b", range(3, 6), finished="2026-02-01T00:00:00+00:00")
    store_of(tmp_path, old, new)
    table = rows(tmp_path)
    assert table.loc[("none", "a" * 64), "status"] == "stale"
    assert table.loc[("none", "b" * 64), "status"] == "ok"
    assert table["n"].tolist() == [3, 3]


def test_cell_without_results_replaces_nothing(tmp_path: Path) -> None:
    """A later run on a machine without the weights is skipped under another identity."""
    skipped = cell("imagenet", "b", range(3), status="skipped", finished=LATER)
    store_of(tmp_path, cell("imagenet", "a", range(3)), skipped)
    table = rows(tmp_path)
    assert table.loc[("imagenet", "a" * 64), ["status", "rank"]].tolist() == ["ok", 1]
    assert table.loc[("imagenet", "b" * 64), "status"] == "stale"


@pytest.mark.parametrize(
    "other",
    [{"target_hash": "u" * 64}, {"protocol_hash": "q" * 64}, {"result_version": "final 2"}, {"train_frac": 0.1}],
)
def test_only_comparable_cells_are_ranked_together(other: dict[str, Any], tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3)), cell("imagenet", "b", range(10, 13), finished=LATER, **other))
    assert rows(tmp_path)["rank"].tolist() == [1, 1]
    assert rows(tmp_path)["status"].tolist() == ["ok", "ok"]


def test_short_protocols_are_not_ranked(tmp_path: Path) -> None:
    store_of(tmp_path, cell("none", "a", range(3), ranked=False))
    assert rows(tmp_path)["rank"].isna().all()


def test_new_run_does_not_change_other_rows(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)))
    before = rows(tmp_path).loc[("none", "a" * 64)].drop("rank")
    write(store, record(0, 99, source="imagenet", cell="b" * 64))
    after = rows(tmp_path).loc[("none", "a" * 64)].drop("rank")
    pd.testing.assert_series_equal(before, after, check_names=False)


def test_empty_store_gives_empty_board(tmp_path: Path) -> None:
    assert board(load_table(tmp_path)).empty


def test_replicates_from_both_kinds_of_processor_are_flagged(tmp_path: Path) -> None:
    of_cell = cell("imagenet", "b", range(3))
    assert of_cell[0].provenance is not None
    on_gpu = of_cell[0].model_copy(update={"provenance": of_cell[0].provenance.model_copy(update={"gpu": 2})})
    mixed = [on_gpu, *of_cell[1:]]
    store_of(tmp_path, cell("none", "a", range(3, 6)), mixed)
    table = rows(tmp_path)
    assert table.loc[("imagenet", "b" * 64), "rank"] in (1, 2), "flagged, and still ranked"
    assert table.loc[("imagenet", "b" * 64), "reason"].startswith("1 of 3 replicates ran on a GPU, the others on a CPU")
    assert pd.isna(table.loc[("none", "a" * 64), "reason"])
    notes = samples(load_table(tmp_path)).notes
    assert any("imagenet x tiny: 1 of 3 replicates ran on a GPU" in note for note in notes)
