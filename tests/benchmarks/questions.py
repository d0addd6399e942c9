"""How long the statistics take on a large board, from records and evidence alone. Prints JSON lines.

python tests/benchmarks/questions.py [SOURCES]    default: 30 sources x 6 backbones x 5 replicates, 1,000 images, 21 classes
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
from examples import record  # noqa: E402

from results import metrics  # noqa: E402
from results.evidence import Evidence, sha256  # noqa: E402
from results.over_images import cell, counts, variance  # noqa: E402
from results.record_files import write_record  # noqa: E402
from results.store import Store  # noqa: E402

SOURCES, BACKBONES, REPLICATES, IMAGES, CLASSES, GROUPS = 30, 6, 5, 1000, 21, 100
DISTINCT = 4  # evidences in memory; every run has one of them, and scores of its own


def proof(seed: int) -> Evidence:
    """Every image holds a few of the classes, as in a street scene."""
    rng, labels = np.random.default_rng(seed), np.random.default_rng(0)
    truth = labels.integers(100, 20_000, (IMAGES, CLASSES)) * (labels.random((IMAGES, CLASSES)) < 0.3)
    truth[:, 0] += 1000
    confusion = np.stack([rng.multinomial(truth[:, k], _row(rng, k)) for k in range(CLASSES)], axis=1)
    weighted = np.where(truth > 0, rng.uniform(0.5, 0.9, truth.shape), np.nan)
    groups = np.array([f"g{i % GROUPS}" for i in range(IMAGES)])
    return Evidence(np.array([f"image-{i}" for i in range(IMAGES)]), groups, confusion, weighted)


def _row(rng: np.random.Generator, k: int) -> np.ndarray:
    share = rng.dirichlet(np.full(CLASSES, 0.3)) * 0.3
    share[k] += 0.7
    return share


def fill(store: Store, sources: int) -> None:
    """Writes the records, their evidence beside them."""
    proofs = [proof(seed) for seed in range(DISTINCT)]
    packed = [(evidence, evidence.to_bytes(), metrics.scores(evidence)) for evidence in proofs]
    rng = np.random.default_rng(1)
    for source in range(sources):
        for backbone in range(BACKBONES):
            cell = sha256(f"{source} {backbone}".encode())
            for replicate in range(REPLICATES):
                evidence, data, scores = packed[(source + backbone + replicate) % DISTINCT]
                shift = source / 1000 + rng.normal(0, 0.01)
                fields = {
                    "source": f"satir/top-{source + 1}",
                    "backbone": f"backbone-{backbone}",
                    "replicates": REPLICATES,
                    "scores": scores.model_copy(update={"miou": scores.miou + shift}),
                    "evidence_sha256": sha256(data),
                    "classes": [f"class {k}" for k in range(CLASSES)],
                }
                write_record(store, record(replicate, cell=cell, seed=0, **fields), evidence)


def timed(*words: object) -> tuple[float, int]:
    """(seconds, peak bytes) of a command, on one core."""
    bench = shutil.which("bench", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if bench is None:
        sys.exit("no `bench` command beside this python: install the project first")
    code = "import os, resource, subprocess, sys; getattr(os, 'sched_setaffinity', lambda *_: None)(0, {0});"
    code += "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, bench, *map(str, words)], check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - began, int(done.stdout)


def main() -> None:
    sources = int(sys.argv[1]) if len(sys.argv) > 1 else SOURCES
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "store")
        fill(store, sources)
        runs = sources * BACKBONES * REPLICATES
        began = time.perf_counter()
        for path in store.root.rglob("record.json"):
            json.loads(path.read_text())
        plain = time.perf_counter() - began
        for command, aim, words in (
            ("table --tiers", 60, ["table", "--tiers"]),
            ("table --tiers, again", None, ["table", "--tiers"]),
            ("compare A B", None, ["compare", "satir/top-1", "satir/top-2"]),
        ):
            took, peak = timed(*words, "--store", store.root)
            row = {"what": command, "runs": runs, "s": took, "peak_gib": peak / 2**30, "aim_s": aim}
            print(json.dumps(row | {"reference": "reading the records' JSON", "reference_s": plain}), flush=True)
    sides = [[proof(seed + 9 * side) for seed in range(REPLICATES)] for side in (0, 1)]
    began = time.perf_counter()
    one, other = (cell([counts(run) for run in side], "miou") for side in sides)
    variance([(one, other)])
    took = time.perf_counter() - began
    row = {"what": "one pair over images", "runs": 2 * REPLICATES, "s": took, "peak_gib": 0, "aim_s": 2}
    print(json.dumps(row | {"reference": "a loop over the groups", "reference_s": looped(sides)}))


def looped(sides: list[list[Evidence]]) -> float:
    """Seconds that it takes to leave out one group after another, each time summing the confusion of the images that remain."""
    began = time.perf_counter()
    for group in range(GROUPS):
        kept = sides[0][0].groups != f"g{group}"
        for run in (run for side in sides for run in side):
            total = run.confusion[kept].sum(0)
            hit = np.diagonal(total)
            np.mean(hit / (total.sum(0) + total.sum(1) - hit))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
