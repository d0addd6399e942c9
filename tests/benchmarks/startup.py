"""How long the commands take that only read, on a store of 1,000 runs. Prints one line of JSON a command.

python tests/benchmarks/startup.py
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

sys.path.insert(0, str(Path(__file__).parents[1]))
import examples

from results.store import Store

RUNS, ROUNDS = 1000, 5
AIMS_S = {"--help": 0.3, "ls": 1.0, "status": 1.0, "table": 1.0}


def make_store(root: Path) -> None:
    """100 sources x 10 replicates."""
    for source in range(100):
        for replicate in range(10):
            cell = examples.sha256(str(source).encode())
            record = examples.record(replicate, source=f"source-{source}", cell=cell, replicates=10)
            examples.write(Store(root), record)


def seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    bench = shutil.which("bench", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if bench is None:
        sys.exit("no `bench` command beside this python: install the project first")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        make_store(store)
        os.environ["BENCH_STORE"] = str(store)
        times: dict[str, list[float]] = {name: [] for name in ("python", "first table", *AIMS_S)}
        for _ in range(ROUNDS):
            shutil.rmtree(store / "cache", ignore_errors=True)
            times["first table"].append(seconds(bench, "table"))
            times["python"].append(seconds(sys.executable, "-c", "pass"))
            for name in AIMS_S:
                times[name].append(seconds(bench, name))
    for name, taken in times.items():
        row = {"command": name, "s": median(taken), "times_python": median(taken) / median(times["python"])}
        print(json.dumps(row | {"aim_s": AIMS_S.get(name)}))


if __name__ == "__main__":
    main()
