"""A matrix by name through the command line, several workers on one card: killed, continued, verified and packed."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from setting import Row, Setting, row

from results import metrics
from results.evidence_files import read_evidence
from results.record_files import read_records
from results.store import Store

ROOT = Path(__file__).parents[2]
WORKERS = 3


def sweep(setting: Setting) -> list[Row]:
    """Run the matrix; kill it with its workers once a run has ended, and run it again."""
    setting.target()
    store = setting.out / "store"
    words = ["run", "--matrix", _matrix(setting), "--jobs", str(WORKERS)]
    begun = time.monotonic()
    killed = _killed(setting, words, store)
    ended = _bench(setting, words)
    took = time.monotonic() - begun
    records, _ = read_records(Store(store))
    statuses = [record.status for record in records]
    made = {(r.provenance.device, r.provenance.gpu) for r in records if r.provenance is not None}
    same = [metrics.all_scores(read_evidence(Store(store), record)) == record.scores for record in records]
    with tarfile.open(setting.out / "records.tar.gz", "w:gz") as packed:
        packed.add(store / "scenes", "scenes")
    good = ended.returncode == 0 and set(statuses) == {"ok"}
    where = ", ".join(f"{name}{'' if gpu is None else f' (GPU {gpu})'}" for name, gpu in sorted(made, key=str))
    return [
        row(
            f"matrix, {WORKERS} workers on one device, {killed}",
            f"{len(statuses)} runs on {where} in {took:.0f} s",
            "all ok",
            good,
        ),
        row(
            "scores recompute from their evidence", f"{sum(same)} of {len(same)} runs", "all", bool(same) and all(same)
        ),
    ]


def _matrix(setting: Setting) -> str:
    import yaml

    from bench.shipped import load_protocol

    fields = load_protocol("demo-v1").model_dump(mode="json") | {"name": "gpu-v1", "device": "any"}
    if setting.small:
        fields |= {
            "finetune_steps": 2,
            "pretrain_steps": 2,
            "trials": 1,
            "replicates": 2,
            "crop_px": [64, 96],
            "max_frames": 6,
        }
    (setting.out / "gpu-v1.yaml").write_text(yaml.safe_dump(fields))
    sources = ["none"] if setting.small else ["none", "imagenet", "satir/felzenszwalb", "satir/sam-tiny"]
    backbones = ["fpn-efficientnet-lite0"] if setting.small else ["fpn-efficientnet-lite0", "segformer-b0"]
    path = setting.out / "gpu.yaml"
    matrix = {"target": "scenes", "protocol": "gpu-v1.yaml", "sources": sources, "backbones": backbones}
    path.write_text(yaml.safe_dump(matrix))
    return str(path)


def _words(setting: Setting, words: list[str]) -> list[str]:
    return [sys.executable, "-m", "bench", *words]


def _environment(setting: Setting) -> dict[str, str]:
    places = {"BENCH_DATA": setting.out / "data", "BENCH_STORE": setting.out / "store", "PYTHONPATH": ROOT}
    return os.environ | {name: str(path.absolute()) for name, path in places.items()}


def _bench(setting: Setting, words: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        _words(setting, words), env=_environment(setting), capture_output=True, text=True, check=False
    )
    print(done.stdout[-4000:], done.stderr[-4000:], sep="\n", flush=True)
    return done


def _killed(setting: Setting, words: list[str], store: Path) -> str:
    """Start the matrix, kill -9 everything once a first run has ended, and say so."""
    shutil.rmtree(store, ignore_errors=True)
    with subprocess.Popen(
        _words(setting, words), env=_environment(setting), start_new_session=True, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not list((store / "scenes").rglob("record.json")):
            time.sleep(0.1)
        if process.poll() is not None:
            return "ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
    return "killed once and continued"
