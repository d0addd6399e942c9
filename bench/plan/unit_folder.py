"""The folder of a unit in a store: file names, and checks that a result is complete. Does not import torch."""

import functools
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench import DivergedError
from bench.plan.trials import read_trials, tuning_of
from bench.plan.units import FinalUnit, PretrainUnit, Unit
from pretrain_sources.corpus import CorpusError, read_corpus
from results.record import Pretraining, RunRecord
from results.record_files import find_record
from results.store import Store
from results.tuning import Tuning, untuned

# besides the result of the unit
CHECKPOINT = "checkpoint.pt"  # of an unfinished training
CLAIM = ".claim"  # locked while a process runs the unit; the kernel releases the lock when that process dies
PROGRESS = "progress.json"  # for other processes, such as `bench status`
LOG = "log.txt"  # output of the worker
OUTCOME = "outcome.json"  # the failure, for the units that need this one
SPENT = "spent.json"  # run time, for estimates in plans and the cost of runs
TUNING_FILE, TRIALS_FILE = "tune.json", "trials.jsonl"  # of a tuning
NETWORK = "network.safetensors"  # the finetuned network of a final, with --keep-weights
TABLES = ("images.parquet", "masks.parquet")  # of a corpus


def folder_of(store: Store, unit: Unit) -> Path:
    """Return the working folder of a unit; it also holds the result, except for finals."""
    return store.unit_dir(unit.kind, unit.fingerprint)


def record_of(store: Store, unit: FinalUnit) -> RunRecord | None:
    """Return the record of this final, or None if there is none or it cannot be read."""
    cell = unit.cell
    folder = store.run_dir(cell.target, cell.protocol, cell.source, cell.backbone, unit.replicate, unit.fingerprint)
    return find_record(store, folder, unit.fingerprint)


def tuning_for(store: Store, unit: FinalUnit) -> tuple[Tuning, dict[str, str]]:
    """Return (tuning of a run, file name -> text to store with its record); the default schedule has no trials."""
    if unit.tuned is None:
        return untuned(unit.protocol.default.model_dump()), {}
    folder = folder_of(store, unit.tuned)
    return Tuning.model_validate_json((folder / TUNING_FILE).read_bytes()), {
        TRIALS_FILE: (folder / TRIALS_FILE).read_text()
    }


def is_done(store: Store, unit: Unit) -> bool:
    """Return whether the result of a unit other than a final is complete; damaged results are made again."""
    # pretrain.json of permuted weights is in the folder of another unit
    learner = unit.learner if isinstance(unit, PretrainUnit) else None
    has_summary = learner is None or _has_summary(folder_of(store, learner))
    return has_summary and is_left(store, unit.kind, unit.fingerprint)


def is_left(store: Store, kind: str, fingerprint: str) -> bool:
    """Return whether the result files of a unit other than a final are complete."""
    folder = store.unit_dir(kind, fingerprint)
    try:
        if kind == "tune":
            tuning = Tuning.model_validate_json((folder / TUNING_FILE).read_bytes())
            return tuning == tuning_of(read_trials(folder / TRIALS_FILE))
        if kind == "corpus":
            return _is_corpus(folder, *(_state(folder / name) for name in ("manifest.json", *TABLES)))
        certificate = json.loads((folder / "certificate.json").read_bytes())
        sizes = {"encoder.safetensors": certificate["encoder_bytes"], **certificate.get("file_bytes", {})}
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DivergedError):
        return False


def is_kept(store: Store, run: str) -> bool:
    """Return whether the network of this run is stored and complete."""
    try:
        with (store.unit_dir("final", run) / NETWORK).open("rb") as file:
            head = int.from_bytes(file.read(8), "little")  # a safetensors file: length of its head, head, values
            ends = [item["data_offsets"][1] for name, item in json.loads(file.read(head)).items() if name[:2] != "__"]
            return bool(file.seek(0, os.SEEK_END) == 8 + head + max(ends))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
        return False


def _has_summary(folder: Path) -> bool:
    """Return whether pretrain.json of a pretraining on a corpus is valid."""
    try:
        return bool(Pretraining.model_validate_json((folder / "pretrain.json").read_bytes()))
    except (OSError, ValueError):
        return False


def _state(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_size, info.st_mtime_ns


@functools.lru_cache(maxsize=1024)
def _is_corpus(folder: Path, *states: tuple[int, int]) -> bool:
    """Return whether a corpus and its tables are complete (label maps are checked when read). Cached by file state."""
    try:
        read_corpus(folder)
        pq.read_metadata(folder / TABLES[1])
    except (OSError, CorpusError, pa.ArrowException):
        return False
    return True
