"""Runs with the tuned and with the default schedule, from the matrix to the verified submission."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Bench, write_matrix
from submitted import Packed, fingerprints, pack_one, ship

from bench.cli.status import cell_status
from bench.plan.cost import work_of
from bench.plan.matrix import load_matrix
from bench.plan.plan import Sweep, make_plan
from bench.plan.saved_plans import read_plan
from bench.plan.units import FinalUnit, TuneUnit
from bench.submission import verify
from bench.submission.copies import explained
from bench.targets import open_target
from results import load_table
from results.record import RunRecord
from results.record_files import read_records
from results.store import Store

PROTOCOL: dict[str, Any] = {"name": "test-both-v1", "tune_replicates": 2, "replicates": 3}


@pytest.fixture(scope="module")
def both(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packed]:
    """Two sources with both schedules, run and packed. Read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.shipped.shipped_files", ship(tmp_path_factory.mktemp("shipped"), **PROTOCOL))
        schedules = ["tuned", "default"]
        yield pack_one(scenes, tmp_path_factory.mktemp("both"), protocol=PROTOCOL["name"], schedules=schedules)


@pytest.fixture
def here(both: Packed, tmp_path: Path) -> Packed:
    return both.copy(tmp_path)


def run_of(here: Packed, kind: str, replicate: int = 0) -> Path:
    """The folder of a run in the bundle."""
    for path in here.bundle.glob(f"runs/*/*/*/*/r{replicate}-*/record.json"):
        if json.loads(path.read_text()).get("schedule_kind", "tuned") == kind:
            return path.parent
    raise AssertionError(kind)


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def of(records: list[RunRecord], kind: str, source: str = "mine") -> list[RunRecord]:
    found = [record for record in records if record.schedule_kind == kind and record.source == source]
    return sorted(found, key=lambda record: record.replicate)


def test_from_the_run_to_the_verdict(both: Packed, here: Packed, bench: Bench) -> None:
    words = ("submit", "verify", here.bundle, "--manifest", here.manifest)
    result = bench(*words, "--spot", 4000, "--networks", both.networks, "--seed", 1)
    assert result.code == 0, result.out
    assert "6 runs recomputed" in result.out
    kinds = set()
    for seed in range(6):
        result = bench(*words, "--reproduce", "--source", both.folder, "--seed", seed)
        assert result.code == 0, result.out
        assert "the same scores, bit for bit" in result.out
        kinds.add("default schedule" in result.out)
    assert kinds == {False, True}, "a run of either schedule was trained again"


def test_a_default_run_says_that_it_was_not_tuned(both: Packed) -> None:
    for record in of(both.records(), "default"):
        assert record.tuning is not None
        assert (record.tuning.trials, record.tuning.tuned_val_miou) == (0, None)
        assert record.tuning.schedule == record.settings["protocol"]["default"]
        identity = record.settings["identity"]
        assert identity["schedule"] == "default"
        assert [unit["kind"] for unit in identity["needs"]] == ["pretrain"], "no tuning"
        assert fingerprints(identity) == (record.run, record.cell)
        assert not (Store(both.store).folder_of(record) / "trials.jsonl").exists()
    tuned = of(both.records(), "tuned")
    assert all("schedule" not in record.settings["identity"] for record in tuned)
    assert all("schedule_kind" not in record.model_dump() for record in tuned)
    assert {len(each) for record in tuned if record.tuning for each in record.tuning.training_val_mious or ()} == {2}
    assert len(tuned) == 3
    assert len({record.cell for record in [*tuned, *of(both.records(), "default")]}) == 2


def test_replicates_of_both_schedules_start_alike(both: Packed) -> None:
    """The first loss is that of the same weights on the same batch."""
    store = Store(both.store)
    for source in ("none", "mine"):
        for a, b in zip(of(both.records(), "tuned", source), of(both.records(), "default", source), strict=True):
            first = [
                (store.folder_of(each) / "history.csv").read_text().splitlines()[1].split(",")[1] for each in (a, b)
            ]
            assert first[0] == first[1]


def test_a_plan_counts_the_trainings_and_needs_no_tuning_for_the_default(scenes: Path, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, tune_replicates=3, trials=2)
    sweep = Sweep(load_matrix(str(path)), Store(tmp_path / "store"), scenes, tmp_path)
    target = open_target("scenes", scenes)
    [tuning] = [unit for unit in make_plan(sweep, target, None).todo if isinstance(unit, TuneUnit)]
    assert work_of(tuning, target) == 2 * 3 * (3 + 3)
    fields = yaml.safe_load(path.read_text()) | {"schedules": ["default"]}
    path.write_text(yaml.safe_dump(fields))
    sweep = Sweep(load_matrix(str(path)), Store(tmp_path / "store"), scenes, tmp_path)
    todo = make_plan(sweep, target, None).todo
    assert [type(unit) for unit in todo] == [FinalUnit, FinalUnit]


def test_the_plan_and_the_status_name_the_schedules(both: Packed, bench: Bench, tmp_path: Path) -> None:
    text = bench("plan", "--matrix", both.matrix, "--store", tmp_path / "new").out
    assert "2 fixed candidates, the same for every source, 2 trainings each; 4 trainings to tune a cell" in text
    assert "1 of the cells have the default schedule, without tuning" in text
    assert "tune          1 units" in text
    assert "final         6 units" in text
    status = bench("status", "--store", both.store).out
    assert "none x tiny, default schedule" in status
    assert status.index("none x tiny ") < status.index("none x tiny, default schedule")
    cells = cell_status(Store(both.store), "none x tiny*")
    assert [len(cell["units"]) for cell in cells] == [4, 3]


def test_plans_without_schedules_are_read_as_tuned(both: Packed, tmp_path: Path) -> None:
    path = next(both.store.glob("plans/*.json.gz"))
    plan = json.loads(gzip.decompress(path.read_bytes()))
    for cell in plan["cells"]:
        del cell["expected"]["schedule_kind"]
    (tmp_path / "old.json.gz").write_bytes(gzip.compress(json.dumps(plan).encode()))
    assert {cell["expected"]["schedule_kind"] for cell in read_plan(tmp_path / "old.json.gz")["cells"]} == {"tuned"}


def test_equal_schedules_explain_equal_predictions_and_others_do_not(both: Packed) -> None:
    tuned, default = of(both.records(), "tuned")[0], of(both.records(), "default")[0]
    assert tuned.tuning is not None
    assert default.tuning is not None
    assert explained(tuned, default), "they share weights and seeds"
    assert explained(tuned, default, equal=True) == (tuned.tuning.schedule == default.tuning.schedule)
    same = tuned.model_copy(update={"tuning": tuned.tuning.model_copy(update={"schedule": default.tuning.schedule})})
    assert explained(same, default, equal=True)
    other = tuned.model_copy(update={"tuning": tuned.tuning.model_copy(update={"schedule": {"lr": 0.5}})})
    assert not explained(other, default, equal=True)
    assert not explained(tuned, of(both.records(), "default")[1]), "another replicate"
    assert not explained(tuned, tuned, equal=True)


def test_an_untouched_bundle_passes(here: Packed) -> None:
    assert not here.codes()


def test_a_tuned_run_is_called_default(here: Packed) -> None:
    edit(run_of(here, "tuned"), schedule_kind="default")
    assert here.codes() == {"record.unreadable"}, "it has trials"


def test_a_tuned_run_is_called_default_and_its_tuning_is_removed(here: Packed) -> None:
    """Then its identity has a tuning that a run with the default schedule does not need."""
    folder, default = run_of(here, "tuned"), json.loads((run_of(here, "default") / "record.json").read_text())
    edit(folder, schedule_kind="default", tuning=default["tuning"])
    assert {"identity.field", "identity.needs"} <= here.codes()


def test_a_default_run_has_another_schedule(here: Packed) -> None:
    folder = run_of(here, "default")
    tuning = json.loads((folder / "record.json").read_text())["tuning"]
    tuning["schedule"]["lr"] *= 2
    edit(folder, tuning=tuning)
    assert "budget.choice" in here.codes()


def test_a_default_run_comes_with_trials(here: Packed) -> None:
    shutil.copy(run_of(here, "tuned") / "trials.jsonl", run_of(here, "default"))
    assert here.codes() == {"budget.choice"}


def test_a_training_is_left_out_of_a_trial(here: Packed) -> None:
    for replicate in range(3):
        folder = run_of(here, "tuned", replicate)
        rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
        record = json.loads((folder / "record.json").read_text())
        for name, value in (("val_miou", rows[0]["val_mious"][0]), ("val_mious", rows[0]["val_mious"][:1])):
            rows[0][name] = value
        (folder / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = [row["val_miou"] for row in rows]
        tuning = record["tuning"] | {"trial_val_mious": values, "default_val_miou": values[0]}
        best = max(range(len(values)), key=lambda n: (values[n], -n))
        tuning |= {"tuned_val_miou": values[best], "schedule": rows[best]["schedule"]}
        edit(folder, tuning=tuning | {"training_val_mious": [row["val_mious"] for row in rows]})
    assert here.codes() == {"budget.trials"}


def test_a_score_of_a_training_is_edited(here: Packed) -> None:
    folder = run_of(here, "tuned")
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    rows[1]["val_mious"][0] = 0.9
    (folder / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert here.codes() == {"budget.choice"}


def test_a_replicate_of_one_schedule_is_missing(here: Packed) -> None:
    """The replicates of the other schedule do not stand in for it."""
    shutil.rmtree(run_of(here, "default", 1))
    here.repack()
    faults = verify.judge(here.bundle, [here.manifest]).faults
    assert [fault.code for fault in faults] == ["cell.replicates"]
    assert "mine x tiny, default schedule: replicates 1 of 3 are missing" in faults[0].text


def test_a_submission_joins_the_board_of_its_schedule(here: Packed, bench: Bench) -> None:
    store = here.bundle.parent.parent / "bench-store"
    shutil.copytree(here.store, store)
    for path in store.glob("*/*/mine"):
        shutil.rmtree(path)
    assert bench("submit", "verify", here.bundle, "--manifest", here.manifest, "--store", store).code == 0
    for words in ([], ["--schedule", "default"]):
        table = bench("table", "--store", store, *words).out
        assert table.count("mine (submitted, recomputed)") == 1, table
    assert len(load_table(store)) == 12
    assert not read_records(Store(store))[1]


def test_a_resumed_run_needs_only_what_is_missing(both: Packed, bench: Bench, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(both.store, store)
    words = ("run", "--matrix", both.matrix, "--source", "none", "--executor", "inline", "--store", store)
    assert "nothing to do" in bench(*words).out
    shutil.rmtree(store / "units" / "tune")
    assert "nothing to do" in bench(*words).out, "records are complete on their own"
    for path in store.glob("*/*/none/*/*/record.json"):
        if "schedule_kind" in path.read_text():
            path.unlink()
    result = bench(*words)
    assert "3 runs to do (3 units)" in result.out, result.out
    assert not (store / "units" / "tune").exists(), "the default schedule needs no tuning"
