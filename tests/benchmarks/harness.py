"""What the harness costs beside the work, and what a second worker brings. Prints one line of JSON.

python tests/benchmarks/harness.py [STEPS]    30 short units of one matrix, by one worker and by two, each in a new store
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
from conftest import make_scenes, protocol_fields  # noqa: E402

from bench.plan.unit_folder import SPENT  # noqa: E402

STEPS = 120
UNITS = 30  # five label shares, for each a tuning and five replicates


def make_matrix(folder: Path, steps: int) -> Path:
    """Units of some seconds each."""
    fields = protocol_fields(replicates=5, finetune_steps=steps, trials=1, max_frames=24, crop_px=[64, 96])
    (folder / "p.yaml").write_text(yaml.safe_dump(fields))
    matrix = {"target": "scenes", "protocol": "p.yaml", "sources": ["none"], "backbones": ["fpn-efficientnet-lite0"]}
    path = folder / "short.yaml"
    path.write_text(yaml.safe_dump(matrix | {"train_fracs": [0.2, 0.4, 0.6, 0.8, 1.0]}))
    return path


def main() -> None:
    bench = shutil.which("bench", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if bench is None:
        sys.exit("no `bench` command beside this python: install the project first")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_scenes(folder)
        path = make_matrix(folder, int(sys.argv[1]) if len(sys.argv) > 1 else STEPS)
        walls, inside = {}, 0.0
        for jobs in (1, 2):
            store = folder / f"store-{jobs}"
            began = time.perf_counter()
            words = ["--matrix", path, "--store", store, "--data", folder, "--jobs", str(jobs)]
            subprocess.run([bench, "run", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
            walls[jobs] = time.perf_counter() - began
            spent = [json.loads(file.read_text())["seconds"] for file in store.glob(f"units/*/*/{SPENT}")]
            assert len(spent) == UNITS, f"{len(spent)} units, not {UNITS}"
            inside = sum(spent) if jobs == 1 else inside
    row = {"one_s": walls[1], "two_s": walls[2], "share": walls[2] / walls[1], "inside_s": inside}
    print(json.dumps(row | {"overhead": (walls[1] - inside) / walls[1]}))


if __name__ == "__main__":
    main()
