"""Synthetic records and evidence for tests."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results import metrics
from results.bundle import BUNDLE, CARD, Listing, Verdict, verdict_file
from results.evidence import Evidence, sha256
from results.record import RunRecord
from results.record_files import run_folders, write_record
from results.scores import Scores
from results.store import RUNS, SUBMISSIONS, Store, slug

SOURCES = {"none": 0.60, "imagenet": 0.65, "satir": 0.651, "satir~shuffled": 0.61}  # mean mIoU of `runs_table`
BACKBONES = ("tiny", "large")


def evidence(seed: int = 0, images: int = 4, classes: int = 3) -> Evidence:
    """Return random but plausible evidence."""
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, 50, (images, classes, classes))
    weighted = np.where(confusion.sum(2) > 0, rng.random((images, classes)), np.nan)
    ids = np.array([f"image-{i}" for i in range(images)])
    return Evidence(ids, np.array(["group"] * images), confusion, weighted)


@functools.cache
def _measured(seed: int) -> tuple[Scores, str]:
    """Return (scores, sha256) of the evidence of a seed; cached, because tests reuse few seeds."""
    proof = evidence(seed)
    return metrics.scores(proof), sha256(proof.to_bytes())


def record(replicate: int = 0, seed: int | None = None, **changes: Any) -> RunRecord:
    """Return a complete record of an ok run; `changes` replace fields (a status other than ok drops the scores)."""
    scores, digest = _measured(replicate if seed is None else seed)
    cell = changes.get("cell", "c" * 64)
    fields: dict[str, Any] = {
        "run": sha256(f"{cell} {replicate}".encode()),
        "cell": cell,
        "target": "soda",
        "target_hash": "t" * 64,
        "label_note": "people-made masks",
        "classes": ["background", "person", "car"],
        "protocol": "soda-v1",
        "protocol_hash": "p" * 64,
        "result_version": "final 1",
        "source": "none",
        "backbone": "tiny",
        "train_frac": 1.0,
        "replicate": replicate,
        "replicates": 3,
        "ranked": True,
        "selected_on_test": False,
        "status": "ok",
        "reason": None,
        "finetune_steps": 10,
        "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "weights": None,
        "weights_sha256": None,
        "scores": scores,
        "tuning": {
            "schedule": {"lr": 1e-3, "decay": "poly"},
            "trials": 2,
            "default_val_miou": 0.3,
            "tuned_val_miou": 0.4,
        },
        "provenance": {
            "version": "0",
            "commit": None,
            "packages": {"torch": "2"},
            "device": "cpu",
            "threads": 1,
            "precision": "fp32",
            "started": "2026-01-01T00:00:00+00:00",
            "train_s": 1.0,
            "score_s": 1.0,
            "final_loss": 0.5,
        },
        "evidence_sha256": digest,
        "finished": f"2026-01-01T00:00:{replicate:02d}+00:00",
        "settings": {},
    }
    if changes.get("status", "ok") != "ok":
        changes = {"scores": None, "evidence_sha256": None, "reason": "because", **changes}
    return RunRecord(**fields | changes)


def write(store: Store, run: RunRecord) -> Path:
    """Write a synthetic record with its evidence."""
    seed = next((seed for seed in range(100) if _measured(seed)[1] == run.evidence_sha256), None)
    return write_record(store, run, None if seed is None else evidence(seed))


def record_paths(store: Store) -> list[Path]:
    """Return every record.json in the store, sorted."""
    return [store.root / folder / "record.json" for folder in run_folders(store)]


def cell(source: str, identity: str, seeds: range, replicates: int = 3, **changes: object) -> list[RunRecord]:
    """Return the records of one cell, one replicate per seed."""
    return [
        record(i, seed, source=source, cell=identity * 64, replicates=replicates, **changes)
        for i, seed in enumerate(seeds)
    ]


def store_of(folder: Path, *cells: list[RunRecord]) -> Store:
    """Create a store with these cells."""
    store = Store(folder)
    for runs in cells:
        for run in runs:
            write(store, run)
    return store


def of_two_devices(folder: Path) -> Store:
    """Create a store with a cell of the device `cpu` and one of the device `B`."""
    other = cell("imagenet", "b", range(3))
    provenance = record().provenance
    assert provenance is not None
    moved = provenance.model_copy(update={"device": "B"})
    return store_of(
        folder, cell("none", "a", range(3)), [run.model_copy(update={"provenance": moved}) for run in other]
    )


def runs_table(
    sources: dict[str, float] = SOURCES, n: int = 5, seed: int = 0, spread: float = 0.004, **changes: Any
) -> pd.DataFrame:
    """Return a table like `load_table`: every source on two backbones, the second 0.1 better; mIoU is normal around the mean."""
    rng = np.random.default_rng(seed)
    rows = []
    for source, mean in sources.items():
        for i, backbone in enumerate(BACKBONES):
            cell = f"{source}{backbone}".encode().hex().ljust(64, "0")[:64]
            for replicate in range(n):
                made = record(replicate, cell=cell, source=source, backbone=backbone, replicates=n, **changes)
                flat = made.model_dump(
                    exclude={"scores", "tuning", "pretraining", "provenance", "settings", "schema_version"}
                )
                for part in (made.scores, made.tuning, made.provenance):
                    flat |= part.model_dump() if part else {}
                score = mean + 0.1 * i + rng.normal(0, spread)
                rows.append(
                    flat
                    | {
                        "miou": score,
                        "weighted_f": score + 0.05,
                        "heldout_miou": None,
                        "heldout_miou_constant": None,
                        "heldout_loss_before": None,
                        "heldout_loss": None,
                        "heldout_loss_constant": None,
                        "badge": None,
                        "test_split": "test",
                        "transfer": "finetune",
                        "further": None,
                        "schedule_kind": "tuned",
                        "training_val_mious": None,
                    }
                )
    return pd.DataFrame(rows)


def as_submission(store: Store, source: str, level: str = "recomputed") -> Path:
    """Move the runs of a source into a bundle with a verdict next to the store; return its folder."""
    folder = store.root.parent / SUBMISSIONS / slug(source)
    for path in store.root.glob(f"*/*/{slug(source)}"):
        there = folder / RUNS / path.relative_to(store.root)
        there.parent.mkdir(parents=True, exist_ok=True)
        path.rename(there)
    (folder / CARD).write_text(f"name: {source}\n")
    files = {p.relative_to(folder).as_posix(): sha256(p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    listing = Listing(name=source, made="2026-01-01T00:00:00+00:00", version="0", environment={}, files=files)
    (folder / BUNDLE).write_text(listing.model_dump_json())
    fields: dict[str, Any] = {"name": source, "level": level, "tried": level, "checked": listing.made, "version": "0"}
    digest = sha256((folder / BUNDLE).read_bytes())
    verdict = Verdict(**fields, bundle_sha256=digest, faults=[], done=[]).model_dump()
    verdict_file(folder).write_text(json.dumps(verdict))
    return folder
