"""The tuning studies of a store, written with Optuna's own storage for its dashboard and other tools."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from bench import BenchError
from bench.export.networks import unreadable_lines
from bench.plan.saved_plans import NAMES, read_plan
from bench.plan.trials import Trial, read_trials
from bench.plan.unit import Json
from bench.plan.unit_folder import TRIALS_FILE
from bench.spec import Protocol
from bench.train.kept import protocol_of
from bench.train.tune import frozen_trial
from results.marks import schedule_words
from results.record import RunRecord
from results.record_files import read_records
from results.store import PLANS, Store

SCHEME = "sqlite:///"
METRIC = "val mIoU"

Tuned = tuple[str, Mapping[str, Any], Path]  # fingerprint of a cell, its fields as in a record, and its file of trials


@dataclass(frozen=True)
class CellStudy:
    """The tuning of a cell. name: unique in a store, the same every time. about: what its cell is, as JSON values."""

    name: str
    about: Mapping[str, Any]
    protocol: Protocol
    trials: tuple[Trial, ...]


@dataclass
class Written:
    """Counts of studies: new ones, those that were there, and those of the latter that got further trials. trials: added ones."""

    new: int = 0
    known: int = 0
    continued: int = 0
    trials: int = 0


def studies_of(store: Store) -> tuple[list[CellStudy], list[str]]:
    """Return every study of a store that has a finished trial, of its runs and of tunings that have no run yet.

    The second list says what was left out: records, plans and protocols of other versions.

    Raises:
        StoreError: there is no store.
    """
    records, unreadable = read_records(store)
    planned, left_out = _of_plans(store)
    left_out = [*unreadable_lines(unreadable), *left_out]
    studies: dict[str, CellStudy] = {}
    others: dict[str, str] = {}  # cell -> why its protocol is none here
    for cell, fields, path in (*_of_runs(records, store), *planned):
        if cell in studies or not (trials := read_trials(path)):
            continue
        try:
            protocol = protocol_of(fields["settings"], f"the tuning of cell {cell[:6]} ({path})")
        except BenchError as error:
            others.setdefault(cell, str(error))
            continue
        about = {name: fields[name] for name in NAMES} | {"cell": cell, "trainings": protocol.tune_replicates}
        studies[cell] = CellStudy(_name(cell, fields), about, protocol, tuple(trials))
    lost = [why for cell, why in others.items() if cell not in studies]
    if lost:
        left_out.append(f"{lost[0]}; repeat it with `bench run`" + (f"; and {len(lost) - 1} more" if lost[1:] else ""))
    return sorted(studies.values(), key=lambda study: study.name), list(dict.fromkeys(left_out))


def _of_runs(records: Iterable[RunRecord], store: Store) -> Iterator[Tuned]:
    """Yield the tuning of each run."""
    for record in records:
        fields = {name: getattr(record, name) for name in (*NAMES, "settings")}
        yield record.cell, fields, store.folder_of(record) / TRIALS_FILE


def _of_plans(store: Store) -> tuple[list[Tuned], list[str]]:
    """Return the tuning of each planned cell, and why plans were left out."""
    tuned: list[Tuned] = []
    left_out = []
    for path in sorted((store.root / PLANS).glob("*.json.gz")):
        try:
            tuned += _in_plan(read_plan(path), store)
        except BenchError as error:
            left_out.append(str(error))
        except (LookupError, TypeError) as error:
            left_out.append(
                f"{path} is of another version: no {error}; the next `bench run` of its matrix writes it again"
            )
    return tuned, left_out


def _in_plan(plan: Json, store: Store) -> list[Tuned]:
    units = plan["units"]
    tuned = []
    for cell in plan["cells"]:
        missing = [name for name in (*NAMES, "settings") if name not in cell["expected"]]
        if missing:
            raise KeyError(missing[0])
        needs = sorted({need for run in cell["runs"] for need in units[run]["needs"] if units[need]["kind"] == "tune"})
        tuned += [(cell["cell"], cell["expected"], store.unit_dir("tune", need) / TRIALS_FILE) for need in needs]
    return tuned


def _name(cell: str, fields: Mapping[str, Any]) -> str:
    share = "" if fields["train_frac"] == 1 else f" at {fields['train_frac']:g}"
    title = f"{fields['source']} x {fields['backbone']}{share}{schedule_words(fields['schedule_kind'])}"
    return f"{title}, {fields['target']}, {fields['protocol']} [{cell[:6]}]"


def file_of(url: str) -> Path:
    """Return the file that an SQLite URL names.

    Raises:
        BenchError: it is no such URL, or the file cannot be one.
    """
    path = Path(url.removeprefix(SCHEME))
    if not url.startswith(SCHEME) or path == Path():
        raise BenchError(f"--optuna {url}: write {SCHEME}FILE, such as {SCHEME}studies.db")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        start = b""
    except OSError as error:
        raise BenchError(f"--optuna {url}: cannot read {path}: {error.strerror}") from error
    if start and start != b"SQLite format 3\0":
        raise BenchError(f"--optuna {url}: {path} is another kind of file: choose another name")
    return path


def write_studies(studies: list[CellStudy], path: Path, report: Callable[[int, int], None]) -> Written:
    """Write studies into an SQLite file. One that is there already gets the trials that it lacks, and is not repeated.

    Raises:
        BenchError: the file cannot be written, or another version of Optuna made it.
    """
    written, storage = Written(), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.RDBStorage(f"{SCHEME}{path}")
        known = {study.study_name for study in storage.get_all_studies()}
        for done, study in enumerate(studies, start=1):
            _write(study, storage, study.name in known, written)
            report(done, len(studies))
    except OSError as error:
        raise BenchError(f"--optuna {SCHEME}{path} cannot be written: {error.strerror}") from error
    except (SQLAlchemyError, RuntimeError) as error:
        why = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise BenchError(f"--optuna {SCHEME}{path} cannot be written: {why}; choose another file") from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
    return written


def _write(study: CellStudy, storage: optuna.storages.RDBStorage, is_known: bool, written: Written) -> None:
    made = optuna.create_study(storage=storage, study_name=study.name, direction="maximize", load_if_exists=True)
    if not is_known:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            made.set_metric_names([METRIC])
        for name, value in study.about.items():
            made.set_user_attr(name, value)
    there = len(made.get_trials(deepcopy=False))
    for trial in study.trials[there:]:
        made.add_trial(frozen_trial(study.protocol, trial, _attributes(study, trial)))
    added = max(0, len(study.trials) - there)
    written.trials += added
    written.new += not is_known
    written.known += is_known
    written.continued += is_known and added > 0


def _attributes(study: CellStudy, trial: Trial) -> dict[str, Any]:
    """Return what a trial says besides its parameters and its value."""
    names = ("source", "backbone", "target", "protocol")
    values = [trial.val_miou] if trial.val_mious is None else trial.val_mious
    kind = {"default_schedule": trial.number == 0, "diverged": trial.val_miou is None}
    return {name: study.about[name] for name in names} | kind | {"val_miou_of_trainings": values}
