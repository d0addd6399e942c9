"""Boards of runs with the tuned and with the default schedule: never mixed, and compared with each other."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import scipy.stats
from conftest import Bench
from elsewhere import SPLIT, renamed, write_on_both
from examples import record, write
from test_dashboard import Open, opened, shown, texts  # noqa: F401 - opened is a fixture
from test_questions import proof

from results import load_table, metrics
from results.board import board
from results.board_choice import UnanswerableError, on_schedule, one_board, schedules_of
from results.evidence import sha256
from results.record_files import write_record
from results.replicate_scores import samples
from results.store import Store
from results.table import runs_frame
from results.tuned_against_default import conclusions_note, with_tuned

UNTUNED = {"schedule": {"lr": 1e-3}, "trials": 0, "default_val_miou": None, "tuned_val_miou": None}
TUNED = {"schedule": {"lr": 2e-3}, "trials": 2, "default_val_miou": 0.3, "tuned_val_miou": 0.4}
# quality of the runs: tuning helps satir, which is ahead of none only if it is tuned
QUALITY = {("none", "tuned"): 0.5, ("none", "default"): 0.5, ("satir", "tuned"): 0.6, ("satir", "default"): 0.502}


def fill(folder: Path, replicates: int = 4, **changes: Any) -> Path:
    """A store of two sources with both schedules."""
    store = Store(folder)
    for number, ((source, kind), quality) in enumerate(QUALITY.items()):
        for replicate in range(replicates):
            evidence = proof(quality, 50 * number + replicate)
            fields: dict[str, Any] = {
                "scores": metrics.scores(evidence),
                "evidence_sha256": sha256(evidence.to_bytes()),
                "cell": f"{number}".ljust(64, "0"),
                "run": sha256(f"{number} {replicate}".encode()),
                "replicates": replicates,
                "schedule_kind": kind,
                "tuning": TUNED if kind == "tuned" else UNTUNED,
            }
            write_record(store, record(replicate, source=source, **fields | changes), evidence)
    return store.root


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("schedules") / "store")


def test_the_tables_of_the_schedules_share_no_run(both: Path) -> None:
    runs = load_table(both)
    assert schedules_of(runs) == ["tuned", "default"]
    tuned, default = on_schedule(runs), on_schedule(runs, "default")
    assert len(tuned) == len(default) == 8
    assert not set(tuned["run"]) & set(default["run"])
    assert one_board(runs)["run"].tolist() == tuned["run"].tolist()
    assert one_board(runs, schedule="default")["run"].tolist() == default["run"].tolist()
    assert on_schedule(tuned) is tuned
    with pytest.raises(UnanswerableError, match="no runs with the default schedule"):
        on_schedule(tuned, "default")
    with pytest.raises(
        UnanswerableError, match="no runs with the tuned schedule; those with the default one: --schedule"
    ):
        one_board(default)


def test_a_board_of_both_ranks_each_schedule_alone(both: Path) -> None:
    cells = board(load_table(both))
    assert (cells["status"] == "ok").all(), "a cell with one schedule is not outdated by the other"
    for kind in ("tuned", "default"):
        assert sorted(cells[cells["schedule_kind"] == kind]["rank"]) == [1, 2]


def test_the_table_shows_one_schedule_and_how_the_other_differs(both: Path, bench: Bench) -> None:
    tuned = bench("table", "--store", both).out
    assert "soda, soda-v1: people-made masks" in tuned
    assert "the default schedule was also run: --schedule default" in tuned
    assert bench("table", "--schedule", "tuned", "--store", both).out == tuned
    default = bench("table", "--schedule", "default", "--store", both).out
    assert "soda, soda-v1, default schedule: people-made masks" in default
    assert "established better (mIoU, Holm-adjusted p < 5 %): satir > none only with the tuned schedule" in default
    assert "schedule: the protocol's default (trial 0), not tuned" in default
    assert "gain of tuning" not in default
    rows = pd.read_csv(io.StringIO(bench("table", "--schedule", "default", "--format", "csv", "--store", both).out))
    runs = load_table(both)
    for row in rows.to_dict("records"):
        mine = runs[runs["source"] == row["source"]]
        a, b = (mine[mine["schedule_kind"] == kind]["miou"] for kind in ("tuned", "default"))
        welch = scipy.stats.ttest_ind(a, b, equal_var=False)
        low, high = welch.confidence_interval()
        assert row["tuned_minus_default"] == pytest.approx(a.mean() - b.mean())
        assert [row[f"tuned_minus_default_{end}"] for end in ("low", "high")] == pytest.approx([low, high])
        assert f"{row['tuned_minus_default']:+.4f} ({low:+.4f}..{high:+.4f})" in default
    listed = json.loads(bench("table", "--schedule", "default", "--format", "json", "--store", both).out)
    assert {row["schedule_kind"] for row in listed} == {"default"}


def test_equal_schedules_are_the_same_trainings(tmp_path: Path, bench: Bench) -> None:
    store = fill(tmp_path / "store")
    won = {**UNTUNED, "trials": 2, "default_val_miou": 0.3, "tuned_val_miou": 0.3}
    for path in store.rglob("record.json"):
        fields = json.loads(path.read_text())
        if "schedule_kind" not in fields:
            path.write_text(json.dumps(fields | {"tuning": won}))
    assert "(trial 0 won)" in bench("table", "--schedule", "default", "--store", store).out
    cells = with_tuned(board(on_schedule(load_table(store), "default")), load_table(store))
    assert cells["tuned_minus_default_low"].isna().all()
    assert set(cells["tuned_note"]) == {"trial 0 won, so both are the same trainings"}


def test_an_incomplete_cell_is_not_compared(tmp_path: Path, bench: Bench) -> None:
    store = fill(tmp_path / "store")
    next(path for path in store.rglob("record.json") if "schedule_kind" not in path.read_text()).unlink()
    runs = load_table(store)
    cells = with_tuned(board(on_schedule(runs, "default")), runs)
    assert cells["tuned_minus_default"].isna().sum() == 1
    assert conclusions_note(cells.iloc[0].to_dict(), runs) is None, "one source is left"
    assert bench("table", "--schedule", "default", "--store", store).code == 0


def test_few_replicates_have_a_difference_without_an_interval(tmp_path: Path, bench: Bench) -> None:
    store = fill(tmp_path / "store", replicates=2)
    out = bench("table", "--schedule", "default", "--store", store).out
    assert "tuned - default: no interval under 3 replicates" in out


def test_sources_on_one_board_alone_do_not_count(both: Path) -> None:
    """Holm's correction is for the same pairs with either schedule."""
    runs = runs_frame(Store(both))
    third = runs[(runs["source"] == "none") & (runs["schedule_kind"] == "tuned")].assign(source="more", cell="9" * 64)
    note = conclusions_note(runs.iloc[0].to_dict(), pd.concat([runs, third], ignore_index=True))
    assert note == conclusions_note(runs.iloc[0].to_dict(), runs)
    assert note is not None


def test_questions_are_asked_about_one_schedule(both: Path, bench: Bench, tmp_path: Path) -> None:
    assert bench("claim", "satir > none", "--store", both).code == 0
    default = bench("claim", "satir > none", "--schedule", "default", "--store", both)
    assert default.code == 4
    assert "on tiny, default schedule" in default.out
    (tmp_path / "claims.yaml").write_text(
        "- {claim: satir > none, expect: supported}\n- {claim: satir > none, expect: not shown, schedule: default}\n"
    )
    result = bench("claim", "--file", tmp_path / "claims.yaml", "--store", both)
    assert result.code == 0, result.out
    refused = bench("claim", "--file", tmp_path / "claims.yaml", "--schedule", "default", "--store", both)
    assert "each claim in --file names its own" in refused.err
    (tmp_path / "claims.yaml").write_text("- {claim: satir > none, expect: supported, schedule: both}\n")
    assert "schedule" in bench("claim", "--file", tmp_path / "claims.yaml", "--store", both).err
    compared = bench("compare", "satir", "none", "--schedule", "default", "--store", both).out
    assert "soda, soda-v1, default schedule: people-made masks" in compared
    assert compared != bench("compare", "satir", "none", "--store", both).out
    for view in ("--tiers", "--per-class"):
        assert "default schedule" in bench("table", view, "--schedule", "default", "--store", both).out
    assert "is not tuned" in bench("table", "--tuning", "--schedule", "default", "--store", both).err
    assert (
        bench("scaling", "--source", "none", "--axis", "train_fraction", "--schedule", "default", "--store", both).code
        == 0
    )
    assert samples(one_board(load_table(both), schedule="default")).schedule_kind == "default"


def test_a_schedule_that_nobody_ran_is_named(bench: Bench, tmp_path: Path) -> None:
    write(Store(tmp_path / "store"), record())
    result = bench("table", "--schedule", "default", "--store", tmp_path / "store")
    assert result.code == 1
    assert "no runs with the default schedule; those with the tuned one: --schedule tuned" in result.err


def test_a_report_has_a_part_for_each_schedule(both: Path, bench: Bench, tmp_path: Path) -> None:
    assert bench("report", "--out", tmp_path / "r", "--store", both).code == 0
    pages = sorted((tmp_path / "r" / "boards").glob("*.html"), key=lambda path: path.stem)
    assert [path.stem for path in pages] == ["soda--soda-v1", "soda--soda-v1--default-schedule"]
    assert "tuned - default</th>" in pages[1].read_text()
    assert len(pd.read_csv(tmp_path / "r" / "runs.csv")) == 16


def test_further_splits_and_schedules_can_be_chosen_together(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for number, kind in enumerate(("tuned", "default")):
        for replicate in range(3):
            pair = proof(0.5, replicate), renamed(proof(0.6 + 0.1 * number, 10 + replicate), SPLIT)
            fields: dict[str, Any] = {"schedule_kind": kind, "tuning": TUNED if kind == "tuned" else UNTUNED}
            write_on_both(store, *pair, replicate, cell=f"{number}" * 64, **fields)
    out = bench("table", "--schedule", "default", "--test", SPLIT, "--store", store.root).out
    assert "test split elsewhere, default schedule" in out
    assert "-0.1" in out, "tuned - default, on this split"


def test_the_dashboard_shows_one_schedule_at_a_time(both: Path, opened: Open) -> None:  # noqa: F811
    app = opened(both)
    [box] = [each for each in app.selectbox if each.label == "Schedule"]
    assert box.options == ["tuned", "default"]
    runs = load_table(both)
    tuned, default = (board(on_schedule(runs, kind)) for kind in ("tuned", "default"))
    assert shown(app, "badges")["miou"].tolist() == tuned["miou"].tolist()
    assert "gain of tuning" in shown(app, "badges")
    app = opened(both, schedule="default")
    assert not app.exception, app.exception
    rows = shown(app, "badges")
    assert rows["miou"].tolist() == default["miou"].tolist()
    expected = with_tuned(default, runs)
    assert rows["tuned - default"].tolist() == expected["tuned_minus_default"].tolist()
    assert "soda, default schedule: people-made masks" in texts(app)
    for page in ("Matrix", "Compare", "Scaling", "Images"):
        assert not opened(both, schedule="default", page=page).exception, page


def test_the_page_of_a_run_says_how_its_schedule_was_chosen(both: Path, opened: Open) -> None:  # noqa: F811
    app = opened(both, page="Run", schedule="default")
    assert "this run has the protocol's default schedule" in texts(app)
    assert "schedules:\n- default" in app.code[0].value
    for path in both.rglob("record.json"):
        if "schedule_kind" not in path.read_text():
            trial = {"number": 0, "schedule": {"lr": 0.1}, "val_miou": 0.35, "val_mious": [0.3, 0.4]}
            (path.parent / "trials.jsonl").write_text(json.dumps(trial) + "\n")
    app = opened(both, page="Run")
    assert shown(app, "lr")["val_mious"].tolist() == ["0.3000, 0.4000"]
    assert "Gain of tuning: **+0.1000 (SE unknown)**" in texts(app)
    assert "schedules" not in app.code[0].value


def test_there_is_no_box_without_default_runs(opened: Open, tmp_path: Path) -> None:  # noqa: F811
    write(Store(tmp_path / "store"), record())
    assert "Schedule" not in [box.label for box in opened(tmp_path / "store").selectbox]


def test_a_store_of_default_runs_alone_is_shown(bench: Bench, opened: Open, tmp_path: Path) -> None:  # noqa: F811
    for replicate in range(3):
        write(Store(tmp_path / "store"), record(replicate, schedule_kind="default", tuning=UNTUNED))
    app = opened(tmp_path / "store")
    assert not app.exception
    assert len(shown(app, "badges")) == 1
    assert "default schedule" in texts(app)
    assert bench("table", "--schedule", "default", "--store", tmp_path / "store").code == 0
