"""The wheel, installed into a separate environment and used from another folder, has all that the demo needs."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout in a folder."""
    kept_out = shutil.ignore_patterns(".*", "*.egg-info", "build", "data", "bench-store", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=kept_out)
    building = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", building], cwd=folder / "source", check=True, capture_output=True)
    shutil.rmtree(folder / "source")
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel, and this one's other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(folder)
    venv.create(folder / "env", with_pip=True)
    python = folder / "env/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    site = next((folder / "env/lib").glob("python*/site-packages"))
    # the path only: .pth files of an editable install are not read from a path that another .pth adds
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env/bin"


def test_the_wheel_runs_the_demo_from_another_folder(installed: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BENCH_", "PYTHON"))}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(str(installed / "python"), "-c", "import bench; print(bench.__file__)")
    assert str(installed.parent) in where
    sized = "from backbones import encoder_sizes, registry; encoder_sizes.encoder_sizes(registry.BACKBONES['tiny'])"
    run(str(installed / "python"), "-c", sized)
    bench = str(installed / "bench")
    listed = run(bench, "ls")
    for name in ("demo", "soda-v1", "none/long", "fpn-efficientnet-lite0"):  # matrices, protocols, cards, backbones
        assert name in listed
    run(bench, "data", "make", "scenes", "--n", "60", "--size", "64x96")
    run(bench, "run", "--matrix", "demo", "--smoke", "--source", "none", "--backbone", "fpn*")
    table = run(bench, "table")
    assert "none    fpn-efficientnet-lite0" in table
    assert "0.6906" in table  # the paper's row
