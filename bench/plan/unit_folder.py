"""The folder of a unit in a store: the names of its files, and whether its result is there, whole. Loads no torch."""

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
from results.record import Pretraining, RunRecord, Tuning
from results.record_files import find_record
from results.store import Store

# besides the result of the unit
CHECKPOINT = "checkpoint.pt"  # of a training that takes long, until it is done
CLAIM = ".claim"  # locked while a process is at it; the kernel frees it when that one dies
PROGRESS = "progress.json"  # how far it has got, for whoever looks from elsewhere
LOG = "log.txt"  # what it printed
OUTCOME = "outcome.json"  # how it failed, for the units that need it
SPENT = "spent.json"  # how long it took, for plans
NETWORK = "network.safetensors"  # of a final, where it is to be kept: what it was scored with
TABLES = ("images.parquet", "masks.parquet")  # of a corpus


def folder_of(store: Store, unit: Unit) -> Path:
    """Where a unit works, and leaves its result unless it is a final."""
    return store.unit_dir(unit.kind, unit.fingerprint)


def record_of(store: Store, unit: FinalUnit) -> RunRecord | None:
    """The record of this very final, or None where there is none that can be read."""
    cell = unit.cell
    folder = store.run_dir(cell.target, cell.protocol, cell.source, cell.backbone, unit.replicate, unit.fingerprint)
    return find_record(store, folder, unit.fingerprint)


def is_done(store: Store, unit: Unit) -> bool:
    """Whether a unit that is no final has left its result whole; what was torn since is made anew."""
    # of what is permuted another unit tells how it was trained
    learner = unit.learner if isinstance(unit, PretrainUnit) else None
    told = learner is None or _is_told(folder_of(store, learner))
    return told and is_left(store, unit.kind, unit.fingerprint)


def is_left(store: Store, kind: str, fingerprint: str) -> bool:
    """Whether the result of a unit that is no final is there, whole."""
    folder = store.unit_dir(kind, fingerprint)
    try:
        if kind == "tune":
            tuning = Tuning.model_validate_json((folder / "tune.json").read_bytes())
            return tuning == tuning_of(read_trials(folder / "trials.jsonl"))
        if kind == "corpus":
            return _is_corpus(folder, *(_state(folder / name) for name in ("manifest.json", *TABLES)))
        certificate = json.loads((folder / "certificate.json").read_bytes())
        sizes = {"encoder.safetensors": certificate["encoder_bytes"], **certificate.get("file_bytes", {})}
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DivergedError):
        return False


def is_kept(store: Store, run: str) -> bool:
    """Whether the network of this run is there, whole."""
    try:
        with (store.unit_dir("final", run) / NETWORK).open("rb") as file:
            head = int.from_bytes(file.read(8), "little")  # a safetensors file: length of its head, head, values
            ends = [held["data_offsets"][1] for name, held in json.loads(file.read(head)).items() if name[:2] != "__"]
            return bool(file.seek(0, os.SEEK_END) == 8 + head + max(ends))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
        return False


def _is_told(folder: Path) -> bool:
    """Whether a pretraining on a corpus says how it went."""
    try:
        return bool(Pretraining.model_validate_json((folder / "pretrain.json").read_bytes()))
    except (OSError, ValueError):
        return False


def _state(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_size, info.st_mtime_ns


@functools.lru_cache(maxsize=1024)
def _is_corpus(folder: Path, *states: tuple[int, int]) -> bool:
    """Whether a corpus and its tables are whole; of a label map only who reads it can say. Looked at once for each state."""
    try:
        read_corpus(folder)
        pq.read_metadata(folder / TABLES[1])
    except (OSError, CorpusError, pa.ArrowException):
        return False
    return True
