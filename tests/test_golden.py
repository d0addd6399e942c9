"""The golden run: a small cell whose numbers are stored. If they move, a result changed: raise RESULT_VERSION.

python tests/test_golden.py      stores the numbers of today
"""

import contextlib
import json
import sys
from pathlib import Path

import pytest
from conftest import Bench, write_matrix

from bench.units import RESULT_VERSION
from results.store import Store

GOLDEN = Path(__file__).with_name("golden.json")


def golden_matrix(folder: Path) -> Path:
    return write_matrix(folder, finetune_steps=20, trials=2, replicates=1, max_frames=6)


def numbers(store: Path) -> dict[str, object]:
    """What a run measured, and under which versions of the stages."""
    [record] = Store(store).read_records()[0]
    assert record.scores is not None
    assert record.tuning is not None
    assert record.provenance is not None
    return {
        "versions": dict(RESULT_VERSION),
        "miou": record.scores.miou,
        "weighted_f": record.scores.weighted_f,
        "default_val_miou": record.tuning.default_val_miou,
        "tuned_val_miou": record.tuning.tuned_val_miou,
        "lr": record.tuning.schedule["lr"],
        "final_loss": record.provenance.final_loss,
    }


def test_the_numbers_have_not_moved_unless_the_version_did(bench: Bench, tmp_path: Path) -> None:
    assert bench("run", "--matrix", golden_matrix(tmp_path), "--jobs", 0).code == 0
    stored, found = json.loads(GOLDEN.read_text()), numbers(tmp_path / "store")
    versions = (stored.pop("versions"), found.pop("versions"))
    assert versions[0] == versions[1], "RESULT_VERSION was raised: run `python tests/test_golden.py`"
    # other processors round otherwise; a change of method moves these numbers by far more
    assert found == pytest.approx(stored, rel=5e-3), (
        "results moved: raise RESULT_VERSION, then `python tests/test_golden.py`"
    )


if __name__ == "__main__":
    import tempfile

    from bench.cli import main
    from bench.targets import tiny_scenes

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_scenes.make(folder / "tiny-scenes")
        sys.argv = ["bench", "run", "--matrix", str(golden_matrix(folder)), "--jobs", "0"]
        sys.argv += ["--data", name, "--store", str(folder / "store")]
        with contextlib.suppress(SystemExit):
            main()
        GOLDEN.write_text(json.dumps(numbers(folder / "store"), indent=1) + "\n")
