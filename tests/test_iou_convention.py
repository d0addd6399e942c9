"""mIoU on the board as in mmsegmentation, from the evidence."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Bench
from examples import record

from results import load_table, metrics
from results.evidence import Evidence, sha256
from results.iou_convention import NOTE, with_convention
from results.record_files import write_record
from results.store import Store


def proof(seed: int) -> Evidence:
    """The third class occurs in no image and is predicted."""
    confusion = np.random.default_rng(seed).integers(1, 50, (6, 3, 3))
    confusion[:, 2] = 0
    weighted = np.full((6, 3), 0.5)
    weighted[:, 2] = np.nan
    ids = np.array([f"i{i}" for i in range(6)])
    return Evidence(ids, ids, confusion, weighted)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for replicate in range(3):
        run = proof(replicate)
        fields: dict[str, Any] = {"scores": metrics.scores(run), "evidence_sha256": sha256(run.to_bytes())}
        write_record(Store(tmp_path), record(replicate, **fields), run)
    write_record(Store(tmp_path), record(0, source="x", cell="e" * 64, status="failed"), None)
    return tmp_path


def test_the_board_in_both_conventions(store: Path, bench: Bench) -> None:
    def shown(*words: str) -> float:
        rows = pd.read_csv(io.StringIO(bench("table", "--store", store, "--format", "csv", *words).out))
        return float(rows.set_index("source")["miou"]["none"])

    ours = [metrics.miou(proof(seed).confusion.sum(0)) for seed in range(3)]
    assert shown() == shown("--iou", "present") == pytest.approx(np.mean(ours))
    assert shown("--iou", "mmseg") == pytest.approx(np.mean(ours) * 2 / 3), "a third class, with an IoU of 0"
    text = bench("table", "--store", store, "--iou", "mmseg").out
    assert NOTE in text
    assert "images" not in text.split("\n")[2]
    result = bench("table", "--store", store, "--iou", "mmseg", "--tiers")
    assert (result.code, result.err) == (1, "bench: --iou applies to the board and not to --tiers\n")
    assert bench("table", "--store", store, "--iou", "voc").code == 1


def test_evidence_that_does_not_match_is_an_error(store: Path, bench: Bench) -> None:
    runs = load_table(store)
    assert with_convention(runs, None) is runs
    next(store.rglob("evidence.npz")).write_bytes(proof(9).to_bytes())
    result = bench("table", "--store", store, "--iou", "mmseg")
    assert result.code == 1
    assert "does not match the checksum" in result.err
