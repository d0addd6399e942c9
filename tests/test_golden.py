"""The golden run: small cells whose numbers are stored. If they move, a result changed: raise RESULT_VERSION.

python tests/test_golden.py      stores the numbers of today
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Bench, make_scenes, write_matrix

from bench.plan.unit import RESULT_VERSION
from results.record_files import read_records
from results.store import Store

GOLDEN = Path(__file__).with_name("golden.json")


PRETRAINING = {"pretrain_images", "pretrain_loss", "heldout_images", "heldout_loss", "heldout_miou"}
# On such small crops its deepest batch norm sees four values, which makes other numbers of a processor's other rounding within ten
# steps (seen: AVX2 against AVX-512). What leads to the first step is nearly the same everywhere: weights, pretraining, batch, loss.
ROUGH = "fpn-efficientnet-lite0"
FIRM_EVEN_THERE = {"first_loss", "pretrain_images", "heldout_images"}

# every way to weights: brought, pretrained, chained, from a part of the pool, and each control of these
BROAD = ("none", "imagenet", "satir/felzenszwalb"), ("tiny", "fpn-efficientnet-lite0", "segformer-b0")
DEEP = (
    (
        "imagenet+satir/felzenszwalb/n-40-groups-3",
        "satir/felzenszwalb/rank-random~shuffled",
        "satir/felzenszwalb~random-rank",
        "imagenet~permuted",
    ),
    ("fpn-efficientnet-lite0",),
)


def golden_matrices(folder: Path) -> list[Path]:
    little: dict[str, Any] = {"finetune_steps": 10, "trials": 2, "replicates": 1}
    broad = write_matrix(folder / "broad", *BROAD, **little, max_frames=4)
    return [broad, write_matrix(folder / "deep", *DEEP, **little, max_frames=10)]


def numbers(store: Path) -> dict[str, object]:
    """Return the results of each cell and the versions of the stages."""
    found: dict[str, object] = {"versions": dict(RESULT_VERSION)}
    for record in read_records(Store(store))[0]:
        if record.scores and record.tuning and record.provenance:
            history = Store(store).folder_of(record) / "history.csv"
            values = {
                "first_loss": float(pd.read_csv(history)["loss"].iloc[0]),
                "miou": record.scores.miou,
                "weighted_f": record.scores.weighted_f,
                "default_val_miou": record.tuning.default_val_miou,
                "tuned_val_miou": record.tuning.tuned_val_miou,
                "lr": record.tuning.schedule["lr"],
                "final_loss": record.provenance.final_loss,
                **(record.pretraining.model_dump(include=PRETRAINING, exclude_none=True) if record.pretraining else {}),
            }
            kept = FIRM_EVEN_THERE if record.backbone == ROUGH else values.keys()
            found[f"{record.source} x {record.backbone}"] = {name: values[name] for name in values if name in kept}
    return found


def test_results_change_only_with_the_version(bench: Bench, wheel: None, tmp_path: Path) -> None:
    for path in golden_matrices(tmp_path):
        assert bench("run", "--matrix", path, "--executor", "inline").code == 0
    stored, found = json.loads(GOLDEN.read_text()), numbers(tmp_path / "store")
    assert stored.pop("versions") == found.pop("versions"), (
        "RESULT_VERSION was raised: run `python tests/test_golden.py`"
    )
    assert stored.keys() == found.keys()
    for cell, values in stored.items():
        # other processors round differently; a change of method has a much larger effect
        moved = f"{cell} moved: raise RESULT_VERSION, then run `python tests/test_golden.py`"
        near = 5e-2 if cell.endswith(ROUGH) else 2e-2
        assert found[cell] == pytest.approx(values, rel=near, abs=2e-4), moved


if __name__ == "__main__":
    import tempfile

    from bench.cli.app import main

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_scenes(folder)
        for path in golden_matrices(folder):
            sys.argv = ["bench", "run", "--matrix", str(path), "--executor", "inline"]
            sys.argv += ["--data", name, "--store", str(folder / "store")]
            with contextlib.suppress(SystemExit):
                main()
        GOLDEN.write_text(json.dumps(numbers(folder / "store"), indent=1) + "\n")
