"""A further test split for tests: some test frames of scenes are moved to `elsewhere`."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import record
from test_questions import proof

from bench import targets
from bench.targets import Target
from pretrain_sources.hashing import fingerprint
from results import metrics
from results.evidence import Evidence, sha256
from results.record import Further, RunRecord
from results.record_files import write_record
from results.store import Store

SPLIT = "elsewhere"
IMPORTERS = ("bench.plan.prepare", "bench.submission.target", "bench.cli.leak_check", "submitted")


def moved(target: Target) -> Target:
    """Return the target with every third test frame in the split `elsewhere`."""
    test = target.splits["test"]
    splits = {**target.splits, "test": tuple(f for i, f in enumerate(test) if i % 3), SPLIT: test[::3]}
    return replace(target, splits=splits, further=(SPLIT,), content_hash=fingerprint([target.content_hash, SPLIT]))


def open_with_elsewhere(patch: pytest.MonkeyPatch) -> None:
    """Every target is opened with the further split."""
    real = targets.open_target
    for name in IMPORTERS:
        importlib.import_module(name)
    for module in list(sys.modules.values()):
        if getattr(module, "open_target", None) is real:
            patch.setattr(module, "open_target", lambda *words, **more: moved(real(*words, **more)))


def renamed(evidence: Evidence, split: str) -> Evidence:
    """Return the evidence as of other images."""
    ids = np.array([f"{split}-{name}" for name in evidence.image_ids])
    return Evidence(ids, evidence.groups, evidence.confusion, evidence.weighted_f)


def further_of(evidence: Evidence) -> Further:
    return Further(scores=metrics.scores(evidence), evidence_sha256=sha256(evidence.to_bytes()))


def write_on_both(store: Store, here: Evidence, there: Evidence, replicate: int, **fields: Any) -> RunRecord:
    """Write a run with evidence on `test` and on `elsewhere`."""
    made = record(
        replicate,
        scores=metrics.scores(here),
        evidence_sha256=sha256(here.to_bytes()),
        further={SPLIT: further_of(there)},
        **fields,
    )
    write_record(store, made, here, further={SPLIT: there})
    return made


def fill(folder: Path, target: str = "soda") -> Store:
    """Make a store in which satir is ahead of none on `test`, and behind it elsewhere; or add the same runs on another target."""
    store = Store(folder)
    for number, (source, here, there) in enumerate((("none", 0.5, 0.7), ("satir", 0.8, 0.4))):
        for i, backbone in enumerate(("tiny", "large")):
            for replicate in range(4):
                seed = 100 * number + 10 * i + replicate
                evidence = proof(here + 0.05 * i, seed), renamed(proof(there, seed + 1000), SPLIT)
                fields: dict[str, Any] = {
                    "cell": sha256(f"{target} {number} {i}".encode()),
                    "run": sha256(f"{target} {seed}".encode()),
                    "replicates": 4,
                    "target": target,
                }
                write_on_both(store, *evidence, replicate, source=source, backbone=backbone, **fields)
    return store
