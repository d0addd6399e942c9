"""Further test splits: records, tables, boards, and the questions that are asked about them."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Bench
from elsewhere import SPLIT, fill, further_of, renamed, write_on_both
from examples import evidence, record, record_paths, write
from pydantic import ValidationError
from test_dashboard import Open, opened, shown, texts  # noqa: F401 - opened is a fixture
from test_known_leaks import touch

import bench as package
import results
from bench.targets import open_target
from bench.targets.manifest import make_manifest, read_manifest, write_manifest
from results import load_table, metrics
from results.board import board
from results.board_choice import UnanswerableError
from results.evidence_files import EvidenceKey, read_evidence
from results.further import on_split, splits_of, with_further
from results.record import MOST_FURTHER, RunRecord
from results.record_files import read_records, write_record
from results.replicate_scores import samples
from results.store import Store, StoreError
from results.table import runs_frame

THERE = renamed(evidence(50), SPLIT)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose runs are scored on two test splits."""
    return fill(tmp_path_factory.mktemp("both") / "store").root


def test_a_record_without_further_splits_has_no_such_key() -> None:
    assert "further" not in record().model_dump()
    assert "further" not in json.loads(record().model_dump_json())
    made = record(further={SPLIT: further_of(THERE)})
    assert RunRecord.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    "splits",
    [
        *(["../x"], ["a/b"], [""], ["A"], ["-x"], ["x" * 33], ["x\n"], ["x.npz"], ["train"], ["val"], ["test"], []),
        [f"s{i}" for i in range(MOST_FURTHER + 1)],
        [f"s{i}" for i in range(1000)],
    ],
)
def test_odd_splits_are_refused(splits: list[str]) -> None:
    one = further_of(THERE).model_dump()
    with pytest.raises(ValidationError, match="further"):
        record(further=dict.fromkeys(splits, one))
    assert record(further={f"s{i}": one for i in range(MOST_FURTHER)}).further


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {**further_of(THERE).scores.model_dump(), "miou": float("nan")}},
        {"scores": {**further_of(THERE).scores.model_dump(), "class_iou": [0.5]}},
        {"evidence_sha256": None},
        {"evidence_sha256": "0"},
        {"more": 1},
    ],
)
def test_odd_scores_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        record(further={SPLIT: further_of(THERE).model_dump() | change})


def test_a_failed_run_has_no_further_scores() -> None:
    with pytest.raises(ValidationError, match="scores must be null"):
        record(status="diverged", further={SPLIT: further_of(THERE)})


def test_evidence_of_each_split_is_written_and_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = write_on_both(store, evidence(), THERE, 0)
    assert read_evidence(store, made).to_bytes() == evidence().to_bytes()
    assert read_evidence(store, made, SPLIT).to_bytes() == THERE.to_bytes()
    with pytest.raises(ValueError, match="not those of the evidence"):
        write_record(store, made, evidence())
    with pytest.raises(ValueError, match="does not match the evidence of elsewhere"):
        write_record(store, made, evidence(), further={SPLIT: renamed(evidence(51), SPLIT)})
    path = store.folder_of(made) / "evidence-elsewhere.npz"
    path.write_bytes(evidence().to_bytes())
    with pytest.raises(StoreError, match=r"evidence-elsewhere\.npz does not match the checksum"):
        read_evidence(store, made, SPLIT)
    path.unlink()
    assert "evidence-elsewhere.npz is missing" in read_records(store)[1][0].why


def test_the_cache_follows_evidence_of_further_splits(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = write_on_both(store, evidence(), THERE, 0)
    assert len(load_table(tmp_path)) == 1
    path = store.folder_of(made) / "evidence-elsewhere.npz"
    away = path.rename(tmp_path / "away")
    assert load_table(tmp_path).attrs["unreadable"]
    away.rename(path)
    assert len(load_table(tmp_path)) == 1


def test_the_table_on_a_split_is_that_of_its_evidence(both: Path) -> None:
    runs = load_table(both)
    assert splits_of(runs) == ["test", SPLIT]
    assert on_split(runs, None) is on_split(runs, "test") is runs
    there = on_split(runs, SPLIT)
    assert there.attrs == runs.attrs
    assert list(there.columns) == list(runs.columns)
    assert len(there) == len(runs)
    for row in there.to_dict("records"):
        key = EvidenceKey.of_row(Store(both), row)
        proof = key.read()
        assert key.split == SPLIT
        assert proof.image_ids[0].startswith("elsewhere-")
        assert metrics.scores(proof).model_dump() == {name: row[name] for name in metrics.scores(proof).model_dump()}
    with pytest.raises(UnanswerableError, match="test split 'nowhere'; available: test, elsewhere"):
        on_split(runs, "nowhere")


def test_runs_without_the_split_are_left_out_and_failed_ones_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for replicate in range(2):
        write_on_both(store, evidence(replicate), THERE, replicate, source="satir")
    write_record(store, record(2, source="satir", status="diverged", reason="not finite", finished="2026-01-02"))
    write(store, record(0, 7, source="none", cell="d" * 64))
    write_record(store, record(0, status="failed", target="other", cell="e" * 64))
    cells = board(on_split(load_table(tmp_path), SPLIT))
    assert cells[["source", "status", "n"]].to_dict("records") == [{"source": "satir", "status": "partial", "n": 2}]
    assert "1 diverged of 3: not finite" in cells["reason"][0]
    runs = load_table(tmp_path)
    with pytest.raises(UnanswerableError, match="available: test"):
        on_split(runs[runs["source"] == "none"], SPLIT)


def test_the_column_of_the_board_is_the_mean_of_the_other_board(both: Path) -> None:
    runs = load_table(both)
    cells = with_further(board(runs), runs).set_index("cell")
    there = board(on_split(runs, SPLIT)).set_index("cell")
    assert (cells["miou elsewhere"] == there["miou"].reindex(cells.index)).all()
    assert there["rank"].notna().all()
    assert set(there["test_split"]) == {SPLIT}


@pytest.mark.parametrize("form", ["table", "md", "latex"])
def test_the_table_has_a_column_for_the_split(form: str, both: Path, bench: Bench) -> None:
    whole = bench("table", "--store", both, "--format", form)
    assert whole.code == 0, whole.err
    assert "mIoU elsewhere" in whole.out
    there = bench("table", "--store", both, "--format", form, "--test", SPLIT)
    assert "soda, soda-v1, test split elsewhere: people-made masks" in there.out
    assert "mIoU elsewhere" not in there.out
    mean = board(on_split(load_table(both), SPLIT))["miou"][0]
    assert f"{mean:.4f}" in whole.out
    assert f"{mean:.4f}" in there.out


def test_csv_and_json_have_it_with_all_digits(both: Path, bench: Bench) -> None:
    cells = with_further(board(load_table(both)), load_table(both))
    rows = pd.read_csv(io.StringIO(bench("table", "--store", both, "--format", "csv").out))
    assert rows["miou elsewhere"].tolist() == cells["miou elsewhere"].tolist()
    of_json = json.loads(bench("table", "--store", both, "--format", "json").out)
    assert [row["miou elsewhere"] for row in of_json] == cells["miou elsewhere"].tolist()
    there = json.loads(bench("table", "--store", both, "--format", "json", "--test", SPLIT).out)
    assert {row["test_split"] for row in there} == {SPLIT}


def test_the_gain_does_not_hold_elsewhere(both: Path, bench: Bench) -> None:
    here = bench("compare", "satir", "none", "--store", both)
    assert "SUPPORTED: satir is" in here.out
    there = bench("compare", "satir", "none", "--store", both, "--test", SPLIT, "--per-class")
    assert there.code == 0, there.err
    assert there.out.startswith("soda, soda-v1, test split elsewhere: people-made masks")
    assert re.search(
        r"CONTRADICTED: satir is 0\.\d+ mIoU behind none over 2 backbones, test split elsewhere", there.out
    )
    assert "12 groups of 48 test images" in there.out
    claim = bench("claim", "satir > none", "--store", both, "--test", SPLIT)
    assert (claim.code, "test split elsewhere" in claim.out) == (5, True)
    assert bench("claim", "satir > none", "--store", both, "--test", "test").code == 0
    tiers = bench("table", "--tiers", "--store", both, "--test", SPLIT).out
    assert tiers.index("none") < tiers.index("satir")


def test_a_claims_file_names_the_split(both: Path, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    entry = '{claim: "satir > none", expect: contradicted, test: elsewhere}'
    path.write_text(f"- {entry}\n")
    assert bench("claim", "--file", path, "--store", both).code == 0
    for form in ("text", "md"):
        out = bench("claim", "--file", path, "--store", both, "--format", form).out
        assert "On elsewhere: Over images: 12 groups of 48 test images" in out
    assert "leave out" in bench("claim", "--file", path, "--store", both, "--test", SPLIT).err


@pytest.mark.parametrize(
    "words",
    [
        ["table"],
        ["table", "--tiers"],
        ["compare", "satir", "none"],
        ["claim", "satir > none"],
        ["scaling", "--source", "satir"],
    ],
)
def test_an_unknown_split_is_one_clear_line(words: list[str], both: Path, bench: Bench) -> None:
    result = bench(*words, "--store", both, "--test", "nowhere")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "no runs are scored on a test split 'nowhere'; available: test, elsewhere" in result.err


def test_the_report_has_a_board_for_each_split(both: Path, bench: Bench, tmp_path: Path) -> None:
    assert bench("report", "--out", tmp_path, "--store", both).code == 0
    first, there = (tmp_path / "boards" / f"soda--soda-v1{more}.html" for more in ("", "--test-split-elsewhere"))
    assert "<h1>soda, soda-v1</h1>" in first.read_text()
    assert ">mIoU elsewhere</th>" in first.read_text()
    assert "<h1>soda, soda-v1, test split elsewhere</h1>" in there.read_text()
    assert "<td>elsewhere</td>" in next((tmp_path / "runs").glob("*.html")).read_text()
    assert json.loads(pd.read_csv(tmp_path / "runs.csv")["further"][0])[SPLIT]


def test_a_leak_on_test_is_no_reason_to_leave_out_other_images(both: Path, tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    touch(store, "satir", 5)
    there = on_split(runs_frame(store), SPLIT)
    data = samples(there)
    assert not data.seen("satir", "none")
    assert data.scores == samples(on_split(load_table(both), SPLIT)).scores
    assert "leak searches do not look at 'elsewhere'" in data.about["satir"]
    cells = board(there)
    assert cells[cells["source"] == "satir"]["rank"].isna().all()


def test_the_dashboard_shows_the_split_of_the_url(both: Path, opened: Open) -> None:  # noqa: F811
    app = opened(both)
    assert [box.label for box in app.sidebar.selectbox][:2] == ["Board", "Test split"]
    assert "mIoU elsewhere" in shown(app, "badges")
    app = opened(both, test=SPLIT)
    assert not app.exception
    assert "soda, test split elsewhere: people-made masks" in texts(app)
    rows = shown(app, "badges")
    assert "mIoU elsewhere" not in rows
    assert rows["miou"].tolist() == board(on_split(load_table(both), SPLIT))["miou"].tolist()
    for page in ("Matrix", "Compare", "Scaling", "Run", "Images"):
        app = opened(both, test=SPLIT, page=page)
        assert not app.exception, page
        assert not app.error
    assert "choose it in the sidebar" in texts(app)
    assert not opened(both, test="../x").exception


def test_the_dashboard_has_no_box_without_further_splits(opened: Open, tmp_path: Path) -> None:  # noqa: F811
    store = Store(tmp_path)
    write(store, record())
    assert "Test split" not in [box.label for box in opened(tmp_path, test=SPLIT).sidebar.selectbox]
    assert len(record_paths(store)) == 1
    assert np.isnan(board(load_table(tmp_path))["miou_low"].astype(float)).all()


def test_a_manifest_without_further_splits_has_no_such_key(scenes: Path, tmp_path: Path) -> None:
    write_manifest(make_manifest(open_target("scenes", scenes)), tmp_path / "scenes.json")
    assert list(json.loads((tmp_path / "scenes.json").read_text())) == ["target", "target_hash", "classes", "test"]
    for shipped in (Path(package.__file__).parent / "targets" / "manifests").iterdir():
        write_manifest(read_manifest(shipped), tmp_path / shipped.name)
        assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes()


def test_a_record_without_younger_fields_has_no_such_keys() -> None:
    younger = {"further", "transfer", "schedule_kind", "licence", "has_seen", "cost"}
    assert not younger & json.loads(record().model_dump_json()).keys()


def test_shipped_records_keep_their_bytes() -> None:
    """A record that is read and written again has the keys that it had."""
    store = Store(Path(results.__file__).parent / "runs")
    for made in read_records(store)[0]:
        old = json.loads((store.folder_of(made) / "record.json").read_text())
        new = json.loads(made.model_dump_json())
        assert ("further" in new) == ("further" in old)
        assert {name: new[name] for name in old if name != "provenance"} == {
            k: v for k, v in old.items() if k != "provenance"
        }
