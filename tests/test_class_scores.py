"""Scores of each class on the board: from records, or from the evidence of older runs, and only where they are asked for."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Bench
from elsewhere import SPLIT, further_of, renamed, write_on_both
from examples import as_submission, cell, evidence, record, store_of

from bench.cli.board_columns import NAMES
from results import load_table, metrics
from results.board import board
from results.class_scores import CLASS_SCORES, RUN_SCORES, class_means, evidence_needed, run_means
from results.compare import CLASS_COLUMNS
from results.evidence import Evidence, sha256
from results.evidence_files import EvidenceKey
from results.further import on_split
from results.record import column_docs
from results.record_files import write_record
from results.store import Store

NEWER = ("precision", "recall", "area")


def newer(replicate: int, seed: int, **fields: Any) -> Any:
    return record(replicate, seed, scores=metrics.all_scores(evidence(seed)), **fields)


def means(root: Path, name: str) -> pd.DataFrame:
    runs = load_table(root)
    return class_means(runs, board(runs), name).values


def expected(name: str, seeds: range) -> list[float]:
    """The mean over replicates, from the evidence alone."""
    scores = [metrics.all_scores(evidence(seed)).model_dump()[CLASS_SCORES[name].column] for seed in seeds]
    return np.mean(np.array(scores, dtype=float), axis=0).tolist()


@pytest.fixture
def evidence_read(monkeypatch: pytest.MonkeyPatch) -> list[EvidenceKey]:
    """The evidence that was read since."""
    read, real = list[EvidenceKey](), EvidenceKey.read
    monkeypatch.setattr(EvidenceKey, "read", lambda key: (read.append(key), real(key))[1])
    return read


def test_every_score_is_a_documented_column_of_the_runs() -> None:
    columns = [score.column for score in CLASS_SCORES.values()] + list(RUN_SCORES)
    assert set(columns) <= column_docs().keys()
    of_record = {name for name in column_docs() if name.startswith("class_")}
    assert of_record == {score.column for score in CLASS_SCORES.values()}
    assert set(CLASS_COLUMNS.values()) <= of_record


@pytest.mark.parametrize("name", CLASS_SCORES)
def test_the_mean_over_replicates_of_newer_and_older_runs(name: str, tmp_path: Path) -> None:
    older = cell("none", "a", range(3))
    made = [newer(i, 10 + i, source="imagenet", cell="b" * 64) for i in range(3)]
    store = store_of(tmp_path, older, made)
    runs = load_table(store.root)
    cells = board(runs)
    found = class_means(runs, cells, name)
    assert not found.unread
    assert list(found.values.columns) == ["background", "person", "car"]
    rows: Any = found.values.set_axis(cells["source"])
    assert rows.loc["none"].tolist() == pytest.approx(expected(name, range(3)), nan_ok=True)
    assert rows.loc["imagenet"].tolist() == pytest.approx(expected(name, range(10, 13)), nan_ok=True)


def test_evidence_is_read_only_for_older_runs_and_only_when_asked(
    tmp_path: Path, evidence_read: list[EvidenceKey]
) -> None:
    older = cell("none", "a", range(3))
    store = store_of(tmp_path, older, [newer(i, 10 + i, source="imagenet", cell="b" * 64) for i in range(3)])
    runs = load_table(store.root)
    cells = board(runs)
    assert evidence_needed(runs, ["iou", "false_presence"]) == 0
    assert evidence_needed(runs, ["iou", "recall", "area"]) == 3
    for name in ("iou", "weighted_f", "false_presence"):
        class_means(runs, cells, name)
    assert not evidence_read
    for name in NEWER:
        class_means(runs, cells, name)
    assert sorted(key.run for key in evidence_read) == sorted(run.run for run in older), "each once"


def test_a_mean_is_missing_where_a_replicate_has_no_value(tmp_path: Path) -> None:
    """Two of three replicates never predict class 2: the mean over the third alone would not be that of the cell."""
    store = Store(tmp_path)
    for i in range(3):
        whole = evidence(i)
        confusion = whole.confusion.copy()
        confusion[:, :, 2] *= i == 0
        proof = Evidence(whole.image_ids, whole.groups, confusion, whole.weighted_f)
        scores = metrics.all_scores(proof)
        write_record(store, record(i, scores=scores, evidence_sha256=sha256(proof.to_bytes())), proof)
    precision, recall = (means(tmp_path, name).iloc[0] for name in ("precision", "recall"))
    assert precision.isna().tolist() == [False, False, True]
    assert recall.notna().all()


def test_damaged_evidence_costs_its_cell_alone_and_is_named(tmp_path: Path) -> None:
    older = cell("none", "a", range(3))
    store = store_of(tmp_path, older, cell("imagenet", "b", range(10, 13)))
    runs = load_table(tmp_path)
    proof = store.folder_of(older[1]) / "evidence.npz"
    proof.write_bytes(evidence(99).to_bytes())
    cells = board(runs)
    found = class_means(runs, cells, "recall")
    rows: Any = found.values.set_axis(cells["source"])
    assert rows.loc["none"].isna().all()
    assert rows.loc["imagenet"].tolist() == pytest.approx(expected("recall", range(10, 13)))
    assert found.unread == (
        f"recall is missing for 1 run: {proof} does not match the checksum in its record.json: restore the file, or run "
        "the replicate again",
    )


def test_failed_cells_have_no_scores(tmp_path: Path) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3), status="failed", reason="no"))
    assert means(store.root, "recall").isna().all(axis=None)
    runs = load_table(store.root)
    assert run_means(runs, board(runs), "miou_no_background").isna().all()


def test_evidence_of_a_submission_is_read_from_its_bundle(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", cell("none", "a", range(3)), cell("mine", "b", range(10, 13)))
    as_submission(store, "mine")
    runs = load_table(store.root)
    cells = board(runs)
    rows: Any = class_means(runs, cells, "area").values.set_axis(cells["source"])
    assert rows.loc["mine"].tolist() == pytest.approx(expected("area", range(10, 13)))


def test_on_a_further_split_no_score_is_that_of_test(tmp_path: Path) -> None:
    """One run has the newer lists of both splits, the other has them nowhere."""
    store = Store(tmp_path)
    there = [renamed(evidence(50 + i), SPLIT) for i in range(2)]
    write_on_both(store, evidence(0), there[0], 0)
    further = {SPLIT: further_of(there[1]).model_copy(update={"scores": metrics.all_scores(there[1])})}
    write_record(store, newer(1, 1, further=further), evidence(1), further={SPLIT: there[1]})
    runs = on_split(load_table(tmp_path), SPLIT)
    both = [metrics.all_scores(proof).class_recall for proof in there]
    found = class_means(runs, board(runs), "recall").values
    assert found.iloc[0].tolist() == pytest.approx(np.mean(np.array(both, dtype=float), axis=0))
    lists = {row["replicate"]: row["class_recall"] for row in runs.to_dict("records")}
    assert lists[0] is None
    assert lists[1] == both[1]


# -- bench table --columns ---------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A store with two boards of different classes."""
    other: dict[str, Any] = {"target": "other", "target_hash": "u" * 64, "classes": ["background", "ship", "ship"]}
    store = store_of(tmp_path / "two", cell("none", "a", range(3)), cell("none", "b", range(3, 6), **other))
    return store.root


@pytest.mark.parametrize("words", [["--columns"], ["--columns", "list"], ["--columns", "--format", "csv"]])
def test_columns_alone_lists_them(words: list[str], bench: Bench) -> None:
    result = bench("table", *words)
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == list(NAMES)
    assert re.search(r"^precision +each class +correct pixels / pixels predicted", result.out, re.MULTILINE)


def test_a_table_of_each_class_score_below_its_board(two: Path, bench: Bench) -> None:
    result = bench("table", "--columns", "precision, class_area_ratio,miou_no_background", "--store", two).out
    assert (
        result.count("precision of each class, mean over replicates: correct pixels / pixels predicted as the class")
        == 2
    )
    assert result.count("area ratio of each class") == 2
    assert result.count("mIoU without background") == 2
    value = expected("precision", range(3))[1]
    assert re.search(rf"^none +tiny +\S+ +{value:.4f} ", result, re.MULTILINE)
    first, _, second = result.partition("\nsoda, soda-v1")
    columns = r"^source +backbone +background +{}$"
    for part, names in ((first, "ship +ship \\(2\\)"), (second, "person +car")):
        assert len(re.findall(columns.format(names), part, re.MULTILINE)) == 2, part
    plain = bench("table", "--store", two).out
    assert "of each class" not in plain
    assert "without background" not in plain


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_column_for_each_class_with_all_digits(form: str, two: Path, bench: Bench) -> None:
    words = ("table", "--format", form, "--store", two, "--columns", "recall,miou_no_background")
    text = bench(*words).out
    rows = pd.read_csv(io.StringIO(text)) if form == "csv" else pd.DataFrame(json.loads(text))
    found: Any = rows.set_index("target").astype({"recall car": float})
    assert found.loc["soda", "recall person"] == pytest.approx(expected("recall", range(3))[1], rel=1e-15)
    assert found.loc["other", "recall ship (2)"] == pytest.approx(expected("recall", range(3, 6))[2], rel=1e-15)
    assert pd.isna(found.loc["other", "recall car"])
    background = [float(metrics.scores(evidence(seed)).miou_no_background or 0) for seed in range(3)]
    assert found.loc["soda", "miou_no_background"] == pytest.approx(np.mean(background))
    text = bench(*words[:-2]).out
    plain = pd.read_csv(io.StringIO(text)) if form == "csv" else pd.DataFrame(json.loads(text))
    pd.testing.assert_frame_equal(rows[plain.columns], plain)


@pytest.mark.parametrize("form", ["md", "latex"])
def test_other_forms(form: str, two: Path, bench: Bench) -> None:
    result = bench("table", "--columns", "false_presence", "--format", form, "--store", two)
    assert result.code == 0
    inside = False
    for line in filter(None, result.out.splitlines()) if form == "latex" else ():
        inside |= line.startswith(r"\begin{tabular}")
        assert inside or line.startswith("%"), line
        inside &= not line.startswith(r"\end{tabular}")
    assert "person" in result.out


def test_the_columns_of_the_shipped_runs_come_from_their_evidence(bench: Bench) -> None:
    shipped = Path(__file__).parents[1] / "results" / "runs"
    text = bench(
        "table", "--store", shipped, "--target", "buffalo-udder", "--columns", ",".join(NEWER), "--format", "csv"
    ).out
    rows: Any = pd.read_csv(io.StringIO(text)).set_index("source")
    rows = rows[rows["n"] > 0]  # without skipped cells
    for label in ("background", "udder"):
        precision, recall, area = (rows[f"{name} {label}"] for name in NEWER)
        assert precision.between(0, 1).all()
        assert recall.between(0, 1).all()
        assert (area > 0).all()
    rows = rows[rows["backbone"] == "fpn-efficientnet-lite0"]
    assert rows.loc["imagenet", "recall udder"] > rows.loc["none", "recall udder"]


def test_unknown_columns_and_other_views(two: Path, bench: Bench) -> None:
    result = bench("table", "--columns", "recal", "--store", two)
    assert (result.code, result.err) == (1, "bench: --columns: no column 'recal': did you mean 'recall'?\n")
    assert "known: area, cost, false_presence, iou" in bench("table", "--columns", "x,", "--store", two).err
    result = bench("table", "--columns", "recall", "--tiers", "--store", two)
    assert "--columns adds to the board and not to --tiers" in result.err


def test_different_classes_on_one_board_are_named(tmp_path: Path, bench: Bench) -> None:
    store = store_of(tmp_path, cell("none", "a", range(3)), cell("x", "b", range(3), classes=["a", "b", "c"]))
    result = bench("table", "--columns", "recall", "--store", store.root)
    assert result.code == 0
    assert "the runs of this board have different classes" in result.out
    assert bench("table", "--columns", "recall", "--format", "csv", "--store", store.root).code == 0
