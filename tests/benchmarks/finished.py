"""How long `bench run`, `plan` and `status` take on a matrix that is finished already. Prints one line of JSON a command.

python tests/benchmarks/finished.py [RUNS ...]    default: 1000 20000

The runs are records made up for a real matrix of SATIR settings x two backbones x five label shares x five replicates.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
import examples  # noqa: E402
from conftest import protocol_fields  # noqa: E402

from bench.cli.progress import Watch  # noqa: E402
from bench.plan.matrix import load_matrix  # noqa: E402
from bench.plan.plan import Sweep  # noqa: E402
from bench.plan.prepare import look  # noqa: E402
from bench.plan.records import known_fields  # noqa: E402
from bench.scenes import make as render  # noqa: E402
from results.record import RunRecord  # noqa: E402
from results.record_files import write_record  # noqa: E402
from results.store import Store  # noqa: E402

AIMS_S = {1000: 2.0, 20_000: 5.0}
ROUNDS = 3
RUNS_A_SETTING = 2 * 5 * 5  # backbones x label shares x replicates


def make_matrix(folder: Path, runs: int) -> Path:
    """A matrix of about so many runs."""
    settings = runs // RUNS_A_SETTING
    tops = min(settings, 20)
    source = {
        "satir/felzenszwalb": {"top_k": list(range(2, 2 + tops)), "min_size": list(range(10, 10 + settings // tops))}
    }
    (folder / "p.yaml").write_text(yaml.safe_dump(protocol_fields(replicates=5)))
    fields = {"target": "scenes", "protocol": "p.yaml", "sources": [source], "train_fracs": [0.2, 0.4, 0.6, 0.8, 1.0]}
    path = folder / "big.yaml"
    path.write_text(yaml.safe_dump(fields | {"backbones": ["tiny", "fpn-efficientnet-lite0"]}))
    return path


def fill(path: Path, store: Store, data: Path) -> int:
    """Writes a record for every run of the matrix; returns how many there are."""
    matrix = load_matrix(str(path))
    target, _, plan = look(Sweep(matrix, store, data, Path("weights")), Watch(matrix, store.root))
    proof = examples.evidence()
    pattern = examples.record(seed=0).model_dump()
    tuning = json.dumps(pattern["tuning"]).encode()
    for unit in plan.finals:
        record = RunRecord(**pattern | {k: v for k, v in known_fields(unit, target.spec).items() if v is not None})
        write_record(store, record, proof)
        tune = store.unit_dir("tune", unit.needs[0].fingerprint)
        tune.mkdir(parents=True, exist_ok=True)
        (tune / "tune.json").write_bytes(tuning)
    return len(plan.finals)


def main() -> None:
    bench = shutil.which("bench", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if bench is None:
        sys.exit("no `bench` command beside this python: install the project first")
    for asked in [int(word) for word in sys.argv[1:]] or list(AIMS_S):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            render(folder / "scenes", 60, (64, 80))
            path, store = make_matrix(folder, asked), Store(folder / "store")
            store.make()
            runs = fill(path, store, folder)
            words = ["--matrix", str(path), "--store", str(store.root), "--data", str(folder)]
            for command in (["run", *words], ["plan", *words], ["status", "--store", str(store.root)]):
                taken = []
                for _ in range(ROUNDS + 1):  # the first fills the cache
                    began = time.perf_counter()
                    result = subprocess.run([bench, *command], check=True, capture_output=True, text=True).stdout
                    taken.append(time.perf_counter() - began)
                if command[0] != "status":
                    assert "to do" not in result.replace("0 to do", "").replace("nothing to do", ""), result
                row = {"command": command[0], "runs": runs, "s": median(taken[1:]), "first_s": taken[0]}
                print(json.dumps(row | {"aim_s": AIMS_S.get(asked)}), flush=True)


if __name__ == "__main__":
    main()
