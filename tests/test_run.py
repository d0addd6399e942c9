"""Matrices end to end, on rendered frames and a network of a few thousand parameters."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import Bench, run_inline, write_matrix
from examples import record_paths

from backbones.transfer import state_sha256
from bench import STOPPED
from bench.plan.unit_folder import CLAIM, NETWORK
from bench.train import stages
from results import load_table, prediction_samples
from results.evidence_files import read_evidence
from results.record_files import read_records
from results.store import Store, read_json_lines

Scores = dict[tuple[str, str, int], tuple[object, ...]]  # (source, backbone, replicate) -> results


def scores_of(store: Path) -> Scores:
    """Return the results, which must not depend on interruptions, with the hash of the evidence."""
    records, bad = read_records(Store(store))
    assert not bad
    return {(r.source, r.backbone, r.replicate): (r.run, r.scores, r.tuning, r.evidence_sha256) for r in records}


def test_a_finished_matrix_has_nothing_to_do(bench: Bench, matrix_file: Path, tmp_path: Path) -> None:
    first = bench("run", "--matrix", matrix_file, "--executor", "inline")
    assert first.code == 0, first.err
    assert "2 runs done, 0 failed, 0 skipped" in first.out
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    again = bench("run", "--matrix", matrix_file, "--executor", "inline")
    assert again.code == 0
    assert "nothing to do: 2 runs done" in again.out
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    table = json.loads(bench("table", "--format", "json").out)
    assert [(row["source"], row["n"], row["status"]) for row in table] == [("none", 2, "ok")]


def test_scores_match_the_evidence(bench: Bench, matrix_file: Path, tmp_path: Path) -> None:
    from results import metrics

    bench("run", "--matrix", matrix_file, "--executor", "inline")
    store = Store(tmp_path / "store")
    for record in read_records(store)[0]:
        assert metrics.all_scores(read_evidence(store, record)) == record.scores


def test_a_run_stores_its_trials_and_sample_predictions(bench: Bench, matrix_file: Path, tmp_path: Path) -> None:
    bench("run", "--matrix", matrix_file, "--executor", "inline")
    store = Store(tmp_path / "store")
    for record in read_records(store)[0]:
        trials = list(read_json_lines(store.folder_of(record) / "trials.jsonl"))
        assert record.tuning is not None
        assert [trial["val_miou"] for trial in trials] == record.tuning.trial_val_mious
        files = prediction_samples.truth_files(store, record.target_hash, record.protocol_hash)
        kept = [
            prediction_samples.read(path) for path in (*files, prediction_samples.predictions_file(store, record.run))
        ]
        ids = read_evidence(store, record).image_ids.tolist()
        assert [set(pictures) for pictures in kept] == [prediction_samples.sample_ids(ids)] * 3
        assert len({pictures[ids[0]].shape for pictures in kept}) == 1
        assert not [path for path in store.folder_of(record).iterdir() if "sample" in path.name], (
            "bundles would include it"
        )


def test_keep_weights_stores_networks_and_repeats_runs_without_one(
    bench: Bench, matrix_file: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    bench("run", "--matrix", matrix_file, "--executor", "inline")
    before = scores_of(store.root)
    assert not list(store.root.rglob(NETWORK)), "a matrix of large networks would fill the disk"
    again = bench("run", "--matrix", matrix_file, "--executor", "inline", "--keep-weights")
    assert again.code == 0, again.err
    assert scores_of(store.root) == before
    for record in read_records(store)[0]:
        kept = safetensors.torch.load_file(store.unit_dir("final", record.run) / NETWORK)
        assert state_sha256(kept) == record.network_sha256
    assert "nothing to do" in bench("run", "--matrix", matrix_file, "--executor", "inline", "--keep-weights").out


def test_the_same_replicate_gives_the_same_record_bit_for_bit(bench: Bench, matrix_file: Path, tmp_path: Path) -> None:
    bench("run", "--matrix", matrix_file, "--executor", "inline")
    bench("run", "--matrix", matrix_file, "--jobs", 2, "--store", tmp_path / "other")
    assert scores_of(tmp_path / "store") == scores_of(tmp_path / "other")
    values = [v[3] for v in scores_of(tmp_path / "store").values()]
    assert len(set(values)) == 2, "replicates differ"


def test_only_the_final_reads_the_test_split(bench: Bench, matrix_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, str]] = []
    stage = {"now": ""}
    real_open = stages.open_split

    def spy(target, split, protocol, frac=1.0):
        opened.append((stage["now"], split))
        return real_open(target, split, protocol, frac)

    monkeypatch.setattr(stages, "open_split", spy)
    for kind, real in list(stages._STAGES.items()):
        monkeypatch.setitem(stages._STAGES, kind, lambda *a, kind=kind, real=real: (stage.update(now=kind), real(*a)))
    bench("run", "--matrix", matrix_file, "--executor", "inline")
    assert set(opened) == {("tune", "train"), ("tune", "val"), ("final", "train"), ("final", "test")}


def test_test_labels_do_not_affect_training_or_tuning(bench: Bench, soda: Path, tmp_path: Path) -> None:
    """With every test mask changed, schedule and validation score stay the same."""
    from PIL import Image

    other = Image.new("L", (160, 120))
    other.paste(1, (0, 0, 80, 120))

    path = write_matrix(tmp_path)
    words = ("run", "--matrix", path, "--target", "soda", "--executor", "inline", "--data", soda)
    bench(*words, "--store", tmp_path / "a")
    base = soda / "soda" / "InfraredSemanticLabel"
    for stem in (base / "test_infrared.txt").read_text().split():
        other.save(base / "SegmentationClassOne" / f"{stem}.png")
    bench(*words, "--store", tmp_path / "b")
    a, b = (read_records(Store(tmp_path / name))[0] for name in "ab")
    assert [r.tuning for r in a] == [r.tuning for r in b]
    assert [r.scores for r in a] != [r.scores for r in b]


def test_a_diverged_cell_is_recorded_and_not_run_again(bench: Bench, tmp_path: Path) -> None:
    search = {
        "lr": {"low": 1e29, "high": 1e31},
        "encoder_lr_scale": {"low": 1, "high": 1},
        "weight_decay": {"low": 0, "high": 0},
    }
    search |= {"warmup_frac": {"low": 0, "high": 0}, "decay": ["poly"]}
    default = {"lr": 1e30, "encoder_lr_scale": 1.0, "weight_decay": 0.0, "warmup_frac": 0.0, "decay": "poly"}
    path = write_matrix(tmp_path, search=search, default=default, finetune_steps=8)
    ended = bench("run", "--matrix", path, "--executor", "inline")
    assert ended.code == 2
    assert "diverged" in ended.out
    first_trials = next((tmp_path / "store").glob("units/tune/*/trials.jsonl")).stat().st_mtime_ns
    again = bench("run", "--matrix", path, "--executor", "inline")
    assert again.code == 2
    assert "nothing to do" in again.out
    assert "--retry" not in again.out
    refused = bench("run", "--matrix", path, "--executor", "inline", "--retry", "diverged")
    assert refused.code == 1
    assert "the same seed would diverge again" in refused.err
    bench("run", "--matrix", path, "--executor", "inline", "--retry", "failed,oom,load_failed")
    trials = next((tmp_path / "store").glob("units/tune/*/trials.jsonl"))
    assert trials.stat().st_mtime_ns == first_trials, "nothing was run again"
    row = json.loads(bench("table", "--format", "json").out)[0]
    assert (row["status"], row["miou"], row["rank"]) == ("diverged", None, None)
    assert "not finite in any of the 2 tuning trials" in row["reason"]


def test_only_the_run_of_a_damaged_record_is_repeated(bench: Bench, matrix_file: Path, tmp_path: Path) -> None:
    bench("run", "--matrix", matrix_file, "--executor", "inline")
    before = scores_of(tmp_path / "store")
    torn = record_paths(Store(tmp_path / "store"))[0]
    torn.write_bytes(torn.read_bytes()[:200])
    shown = bench("table")
    assert shown.code == 0
    assert str(torn) in shown.err
    assert "1/2" in shown.out
    assert str(torn) in bench("status").out
    assert "1 runs to do (1 units)" in bench("run", "--matrix", matrix_file, "--executor", "inline").out
    assert scores_of(tmp_path / "store") == before


@pytest.mark.parametrize("name", ["tune.json", "encoder.safetensors"])
def test_a_damaged_unit_is_made_again(name: str, bench: Bench, wheel: None, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, ("imagenet",), ("fpn-efficientnet-lite0",), trials=1, replicates=1)
    assert bench("run", "--matrix", path, "--executor", "inline").code == 0
    before = scores_of(tmp_path / "store")
    torn = next((tmp_path / "store").glob(f"units/*/*/{name}"))
    torn.write_bytes(torn.read_bytes()[:50])
    record_paths(Store(tmp_path / "store"))[0].unlink()
    assert bench("run", "--matrix", path, "--executor", "inline").code == 0
    assert scores_of(tmp_path / "store") == before


# -- ImageNet weights ------------------------------------------------------------------------------------------------


def segformer_matrix(folder: Path) -> Path:
    return write_matrix(folder, ("imagenet",), ("segformer-b0",), trials=1, replicates=1)


@pytest.fixture
def mit(tmp_path: Path) -> Path:
    """A local folder in the hub's format, where the command line looks for it."""
    from transformers import SegformerImageProcessor, SegformerModel

    from backbones.registry import BACKBONES
    from backbones.segformer import config_of

    torch.manual_seed(5)
    folder = tmp_path / "weights" / "mit-b0"
    SegformerModel(config_of(BACKBONES["segformer-b0"])).save_pretrained(folder)
    SegformerImageProcessor().save_pretrained(folder)
    return folder / "model.safetensors"


def test_valid_weights_store_a_certificate_with_the_run(bench: Bench, mit: Path, tmp_path: Path) -> None:
    ended = bench("run", "--matrix", segformer_matrix(tmp_path), "--executor", "inline")
    assert ended.code == 0, ended.out
    certificate = json.loads(next((tmp_path / "store").glob("scenes/**/certificate.json")).read_text())
    assert certificate["passed"]
    assert certificate["tensors_matched"] == certificate["tensors_expected"] > 100
    assert load_table(tmp_path / "store")["weights"].iloc[0].startswith("folder mit-b0 sha256:")


def test_nan_weights_give_load_failed_and_a_certificate(bench: Bench, mit: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(mit)
    next(iter(tensors.values()))[0] = float("nan")
    save_file(tensors, mit, metadata={"format": "pt"})
    ended = bench("run", "--matrix", segformer_matrix(tmp_path), "--executor", "inline")
    assert ended.code == 2
    row = json.loads(bench("table", "--format", "json").out)[0]
    assert row["status"] == "load_failed"
    assert "not finite" in row["reason"]
    certificate = json.loads(next((tmp_path / "store").glob("scenes/**/certificate.json")).read_text())
    assert "not finite" in certificate["problems"][0]
    assert not list((tmp_path / "store").glob("units/pretrain/*/encoder.safetensors"))


def test_unavailable_weights_are_skipped_and_tried_again(
    bench: Bench, mit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backbones import imagenet

    away = tmp_path / "away"
    shutil.move(mit.parent, away)
    monkeypatch.setattr(imagenet, "hub_silence", lambda: "no route")
    monkeypatch.setattr(imagenet, "_in_hub_cache", lambda repository: False)
    path = segformer_matrix(tmp_path)
    ended = bench("run", "--matrix", path, "--executor", "inline")
    assert ended.code == 0, "skipping is not an error"
    row = json.loads(bench("table", "--format", "json").out)[0]
    assert row["status"] == "skipped"
    assert "hf download nvidia/mit-b0 --local-dir" in row["reason"]
    shutil.move(away, mit.parent)
    assert "1 runs done, 0 failed, 0 skipped" in bench("run", "--matrix", path, "--executor", "inline").out
    rows = json.loads(bench("table", "--format", "json").out)
    assert {row["status"] for row in rows} == {"ok", "stale"}, "the record with results replaces the skipped one"


# -- a store that fails ----------------------------------------------------------------------------------------------


def longer(folder: Path) -> Path:
    """A matrix that takes long enough to be interrupted in the middle."""
    return write_matrix(folder, ("none", "none/long"), finetune_steps=40, trials=3)


@pytest.fixture(scope="module")
def unbroken(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """Results of `longer` without an interruption."""
    folder = tmp_path_factory.mktemp("unbroken")
    run_inline(longer(folder), folder / "store", scenes)
    return scores_of(folder / "store")


def test_a_store_that_becomes_read_only_stops_the_run_and_the_next_run_resumes(
    bench: Bench,
    scenes: Path,
    small_disk: Path,
    tmp_path: Path,
    unbroken: Scores,
) -> None:
    path = longer(tmp_path)
    store = small_disk / "store"
    running = start(path, store, scenes)
    wait_for("units/tune/*/trials.jsonl", store, running)
    subprocess.run(["mount", "--bind", small_disk, small_disk], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", small_disk], check=True)
    try:
        output, _ = running.communicate(timeout=60)
    finally:
        subprocess.run(["umount", small_disk], check=True)
    assert running.returncode == 1, output
    assert "Read-only file system" in output
    assert "Traceback" not in output
    kept = {file: file.read_bytes() for file in store.glob("units/tune/*/trials.jsonl")}
    assert kept
    assert bench("run", "--matrix", path, "--executor", "inline", "--store", store).code == 0
    assert all(file.read_bytes().startswith(before) for file, before in kept.items()), "no trial was lost"
    assert scores_of(store) == unbroken


def test_the_lock_of_a_dead_process_blocks_nobody(bench: Bench, matrix_file: Path, tmp_path: Path) -> None:
    assert bench("run", "--matrix", matrix_file, "--executor", "inline").code == 0
    whole = scores_of(tmp_path / "store")
    again = tmp_path / "again"
    for old in (tmp_path / "store").glob("units/*/*"):
        claim = again / old.relative_to(tmp_path / "store") / CLAIM
        claim.parent.mkdir(parents=True)
        holder = subprocess.Popen(
            [sys.executable, "-c", "import sys, filelock; filelock.FileLock(sys.argv[1]).acquire(); input()", claim],
            stdin=subprocess.PIPE,
        )
        while not claim.exists():
            time.sleep(0.05)
        holder.kill()
        holder.wait()
        assert claim.exists(), "the file stays"
    assert bench("run", "--matrix", matrix_file, "--executor", "inline", "--store", again).code == 0
    assert scores_of(again) == whole


# -- interrupted -----------------------------------------------------------------------------------------------------


def start(path: Path, store: Path, scenes: Path) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-c",
        "from bench.cli.app import main; main()",
        "run",
        "--matrix",
        str(path),
        "--jobs",
        "2",
    ]
    words += ["--store", str(store), "--data", str(scenes)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def wait_for(pattern: str, store: Path, running: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if list(store.glob(pattern)):
            return
        assert running.poll() is None, running.stdout and running.stdout.read()
        time.sleep(0.05)
    pytest.fail(f"no {pattern} after a minute")


def test_ctrl_c_while_torch_is_loading_is_quiet(scenes: Path, tmp_path: Path) -> None:
    running = start(write_matrix(tmp_path), tmp_path / "store", scenes)
    wait_for("cache/scan-*.json", tmp_path / "store", running)
    time.sleep(2)  # the fork server is importing now
    os.killpg(running.pid, signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 3, output
    assert "Traceback" not in output


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_resumes_to_the_same_results(
    stop: signal.Signals,
    bench: Bench,
    scenes: Path,
    tmp_path: Path,
    unbroken: Scores,
) -> None:
    path = longer(tmp_path)
    store = tmp_path / "broken"
    running = start(path, store, scenes)
    wait_for("units/tune/*/trials.jsonl", store, running)
    if stop == signal.SIGINT:
        os.killpg(running.pid, stop)  # as a terminal does: the whole group
    else:
        running.kill()
    output, _ = running.communicate(timeout=60)
    if stop == signal.SIGINT:
        assert running.returncode == 3, output
        assert STOPPED in output
        assert "Traceback" not in output
    assert len(record_paths(Store(store))) < 4, "it was stopped in the middle"
    assert bench("run", "--matrix", path, "--executor", "inline", "--store", store).code == 0
    assert scores_of(store) == unbroken
    assert len(unbroken) == 4
