"""`bench export --optuna`: the studies of a store in Optuna's own storage, opened by its dashboard."""

import gzip
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Bench
from kept_runs import fault, keep, runs_of
from optuna.trial import TrialState

from bench.export.studies import studies_of
from bench.plan.trials import read_trials
from bench.plan.unit_folder import TRIALS_FILE
from results.record_files import read_records
from results.store import Store

SHIPPED = Store(Path(__file__).parents[1] / "results" / "runs")
PATIENCE_S = 60.0
HOST = "127.0.0.1"


def studies_in(path: Path) -> dict[str, optuna.Study]:
    """Load the studies of a file."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    return {
        study.study_name: optuna.load_study(study_name=study.study_name, storage=storage)
        for study in storage.get_all_studies()
    }


@pytest.fixture(scope="module")
def store(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One cell with three trials of two trainings each; read only."""
    return keep(tmp_path_factory.mktemp("tuned"), scenes, replicates=1, finetune_steps=3, trials=3, tune_replicates=2)


@pytest.fixture(scope="module")
def shipped_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studies of the shipped runs."""
    from bench.export.studies import write_studies

    path = tmp_path_factory.mktemp("studies") / "new" / "studies.db"
    written = write_studies(studies_of(SHIPPED)[0], path, lambda done, total: None)
    trials = {record.cell: len(record.tuning.trial_val_mious) for record in read_records(SHIPPED)[0] if record.tuning}
    assert (written.new, written.known, written.trials) == (len(trials), 0, sum(trials.values()))
    assert trials
    return path


def test_every_shipped_study_is_there_with_its_trials(shipped_file: Path) -> None:
    records = {record.cell: record for record in read_records(SHIPPED)[0] if record.status == "ok"}
    studies = studies_in(shipped_file)
    assert {study.user_attrs["cell"] for study in studies.values()} == records.keys()
    for name, study in studies.items():
        record = records[study.user_attrs["cell"]]
        where = {"target": record.target, "protocol": record.protocol}
        assert name == f"{record.source} x {record.backbone}, {', '.join(where.values())} [{record.cell[:6]}]"
        assert record.tuning is not None
        assert [trial.value for trial in study.trials] == record.tuning.trial_val_mious
        assert study.best_value == record.tuning.tuned_val_miou
        chosen = {name: record.tuning.schedule[name] for name in study.best_params}
        assert study.best_params == chosen
        assert set(chosen) == {"lr", "encoder_lr_scale", "weight_decay", "warmup_frac", "decay"}
        about = {"source": record.source, "backbone": record.backbone, **where}
        assert all(about.items() <= one.items() for one in (study.user_attrs, *(t.user_attrs for t in study.trials)))
        assert [trial.user_attrs["default_schedule"] for trial in study.trials] == [True] + [False] * 2
        assert study.metric_names == ["val mIoU"]


def test_the_means_of_trainings_and_diverged_trials(store: Store, tmp_path: Path, bench: Bench) -> None:
    changed = Store(shutil.copytree(store.root, tmp_path / "store"))
    path = changed.folder_of(runs_of(changed)[0]) / TRIALS_FILE
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2] |= {"val_miou": None, "val_mious": [rows[2]["val_mious"][0], None]}
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = bench("export", changed.root, "--optuna", f"sqlite:///{tmp_path / 's.db'}")
    assert done.code == 0, done.err
    [study] = studies_in(tmp_path / "s.db").values()
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
    assert [trial.user_attrs["diverged"] for trial in study.trials] == [False, False, True]
    for trial, row in zip(study.trials, rows, strict=True):
        assert trial.user_attrs["val_miou_of_trainings"] == row["val_mious"]
        assert trial.value == row["val_miou"]
    assert study.user_attrs["trainings"] == 2


def test_a_tuning_without_a_run_is_known_by_its_plan(store: Store, tmp_path: Path) -> None:
    before = studies_of(store)
    begun = Store(shutil.copytree(store.root, tmp_path / "store"))
    shutil.rmtree(begun.folder_of(runs_of(begun)[0]))
    assert read_records(begun)[0] == []
    assert studies_of(begun) == before
    [path] = begun.root.glob(f"units/tune/*/{TRIALS_FILE}")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    assert [study.trials for study in studies_of(begun)[0]] == [tuple(read_trials(path))]
    path.unlink()
    assert studies_of(begun) == ([], [])


def test_studies_that_are_there_are_completed_and_not_repeated(store: Store, tmp_path: Path, bench: Bench) -> None:
    begun, file = Store(shutil.copytree(store.root, tmp_path / "store")), tmp_path / "s.db"
    path = begun.folder_of(runs_of(begun)[0]) / TRIALS_FILE
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0])
    call = ("export", begun.root, "--optuna", f"sqlite:///{file}")
    assert bench(*call).out == (
        f"{file}: 1 studies and 1 trials written; see them with: optuna-dashboard sqlite:///{file}\n"
    )
    path.write_text("".join(lines))
    assert "0 studies and 2 trials written; 1 were there already, 1 of them got further trials" in bench(*call).out
    assert "0 studies and 0 trials written; 1 were there already, 0 of them got further trials" in bench(*call).out
    [study] = studies_in(file).values()
    assert [trial.value for trial in study.trials] == [trial.val_miou for trial in read_trials(path)]
    other = bench("export", SHIPPED.root, "--optuna", f"sqlite:///{file}")
    cells = len({record.cell for record in read_records(SHIPPED)[0] if record.tuning})
    assert f"{cells} studies and " in other.out
    assert len(studies_in(file)) == cells + 1


def test_what_another_version_made_is_left_out_and_named(store: Store, tmp_path: Path, bench: Bench) -> None:
    other, url = Store(shutil.copytree(store.root, tmp_path / "store")), f"sqlite:///{tmp_path / 's.db'}"
    record = other.folder_of(runs_of(other)[0]) / "record.json"
    whole = json.loads(record.read_text())
    [plan] = other.root.glob("plans/*.json.gz")
    content = json.loads(gzip.decompress(plan.read_bytes()))
    for cell in content["cells"]:
        del cell["expected"]["settings"]
    plan.write_bytes(gzip.compress(json.dumps(content).encode()))
    done = bench("export", other.root, "--optuna", url)
    assert done.code == 0
    assert done.err == (
        f"  left out: {plan} is of another version: no 'settings'; the next `bench run` of its matrix writes it again\n"
    )
    del whole["settings"]["protocol"]["trials"]
    record.write_text(json.dumps(whole))
    why = fault(bench, "export", other.root, "--optuna", url)
    assert "has no tuning study that can be written" in why
    assert "was made by another version of satir-bench: trials: Field required" in why
    assert why.endswith("; repeat it with `bench run`\n"), "once for its cell"
    record.write_text(json.dumps(whole | {"schema_version": 0}))
    assert "1 record cannot be read, the next `bench run` repeats such runs:" in fault(
        bench, "export", other.root, "--optuna", url
    )


def test_the_store_is_that_of_the_option_by_default(store: Store, tmp_path: Path, bench: Bench) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    assert "1 studies and 3 trials" in bench("export", "--optuna", url, "--store", store.root).out


def test_stores_and_files_that_cannot_be_used(store: Store, scenes: Path, tmp_path: Path, bench: Bench) -> None:
    def why(url: str, root: Path = store.root) -> str:
        return fault(bench, "export", root, "--optuna", url)

    good = f"sqlite:///{tmp_path / 's.db'}"
    assert "no store at" in why(good, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert (
        "empty has no tuning study that can be written: every run has the default schedule, or none has begun"
        in why(good, tmp_path / "empty")
    )
    assert not (tmp_path / "s.db").exists()
    for url in ("studies.db", "sqlite://studies.db", "mysql://me@here/db", "sqlite:///"):
        assert f"--optuna {url}: write sqlite:///FILE" in why(url)
    (tmp_path / "notes.txt").write_text("some other file, which is not to be lost")
    assert "notes.txt is another kind of file: choose another name" in why(f"sqlite:///{tmp_path / 'notes.txt'}")
    assert "Is a directory" in why(f"sqlite:///{tmp_path}")
    assert "Not a directory" in why(f"sqlite:///{tmp_path / 'notes.txt' / 's.db'}")
    assert "cannot be written" in why("sqlite:////proc/s.db")
    (tmp_path / "torn.db").write_bytes(b"SQLite format 3\0" + b"x" * 500)
    assert "torn.db cannot be written: file is not a database; choose another file" in why(
        f"sqlite:///{tmp_path / 'torn.db'}"
    )


# -- Optuna's dashboard ------------------------------------------------------------------------------------------------------


@pytest.fixture
def dashboard(shipped_file: Path) -> Iterator[str]:
    """The address of optuna-dashboard on the studies of the shipped runs."""
    pytest.importorskip("optuna_dashboard", reason="pip install 'satir-bench[export]'")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    words = ["optuna_dashboard._cli", f"sqlite:///{shipped_file}", "--host", HOST, "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", *words, "--quiet"], stderr=subprocess.DEVNULL)
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.terminate()
        server.wait()


def asked(address: str) -> Any:
    """Return the JSON at an address, once the server answers."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(address) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def test_optuna_dashboard_shows_every_study(dashboard: str, shipped_file: Path) -> None:
    known = studies_in(shipped_file)
    listed = asked(f"{dashboard}/api/studies")["study_summaries"]
    assert {one["study_name"] for one in listed} == known.keys()
    for one in listed:
        detail, study = asked(f"{dashboard}/api/studies/{one['study_id']}"), known[one["study_name"]]
        assert [trial["values"] for trial in detail["trials"]] == [[trial.value] for trial in study.trials]
        assert [trial["number"] for trial in detail["best_trials"]] == [study.best_trial.number]
        assert {space["name"] for space in detail["union_search_space"]} == set(study.best_params)
        names = {attribute["key"] for attribute in detail["trials"][0]["user_attrs"]}
        assert {"source", "backbone", "target", "protocol", "val_miou_of_trainings"} <= names
