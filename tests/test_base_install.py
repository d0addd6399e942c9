"""The base install, without extras: a fresh environment reads boards, and says in one line what a run needs."""

import os
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver
from test_browser import browser, downloads, drawn, healthy, text, wait  # noqa: F401 - two are fixtures
from test_wheel import build_wheel

from bench.cli import extras
from results.record_files import read_records
from results.store import Store

ROOT = Path(__file__).parents[1]
SHIPPED = Store(ROOT / "results" / "runs")
TORCH_IS_MISSING = "bench: this command needs torch; install it with: pip install 'satir-bench[train]'\n"
EVERY_PAGE = """
import sys
from pathlib import Path
import dashboard
from streamlit.testing.v1 import AppTest
for page in ("Leaderboard", "Matrix", "Compare", "Cost", "Scaling", "Run", "Images"):
    app = AppTest.from_file(str(Path(dashboard.__file__).with_name("app.py")), default_timeout=60)
    app.query_params["page"] = page
    app.run()
    assert app.title and not app.exception and not app.error, (page, app.exception, app.error)
"""

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and what it depends on, and no extra."""
    folder = tmp_path_factory.mktemp("base")
    wheel, environment = build_wheel(folder), folder / "env"
    python, constraints = environment / "bin/python", ROOT / "constraints.txt"
    if uv := shutil.which("uv"):
        create: list[str | Path] = [uv, "venv", "--quiet", "--python", sys.executable, environment]
        install: list[str | Path] = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--constraints",
            constraints,
            wheel,
        ]
    else:
        create = [sys.executable, "-m", "venv", environment]
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints, wheel]
    subprocess.run(create, check=True, capture_output=True)
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the packages cannot be installed: {done.stderr[-500:]}")
    return environment / "bin"


@pytest.fixture
def call(base: Path, tmp_path: Path) -> Call:
    """Run a program of the base install outside of the checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BENCH_", "PYTHON"))}

    def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
        command = [str(base / program), *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def runs(call: Call) -> Path:
    """The store that ships in the wheel."""
    where = call("python", "-c", "import results; print(results.__file__)")
    return Path(where.stdout.strip()).with_name("runs")


def test_the_base_install_holds_no_module_of_an_extra(call: Call) -> None:
    modules = sorted(module for of_extra in extras.MODULES.values() for module in of_extra)
    code = f"from importlib.util import find_spec; print([name for name in {modules} if find_spec(name)])"
    assert call("python", "-c", code).stdout == "[]\n"


def test_the_base_install_reads_a_board(call: Call, runs: Path, tmp_path: Path) -> None:
    def answer(*words: object) -> str:
        done = call("bench", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert call("python", "-m", "bench", "--version").stdout == answer("--version")
    assert "fpn-efficientnet-lite0" in answer("ls")
    assert "imagenet" in answer("table", "--store", runs)
    first = read_records(SHIPPED)[0][0]
    of_board = ("--target", first.target, "--protocol", first.protocol, "--store", runs)
    assert "SUPPORTED" in answer("compare", "imagenet", "none", *of_board)
    assert "SUPPORTED" in answer("claim", "imagenet > none", *of_board)
    assert "5 ok of 5" in answer("status", "--store", runs)
    answer("report", "--out", tmp_path / "page", "--store", runs)
    assert "vegaEmbed" in (tmp_path / "page/assets/vega.js").read_text()


def test_the_base_install_verifies_a_store(call: Call, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    done = call("bench", "submit", "verify", "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    measured = [record for record in read_records(SHIPPED)[0] if record.status == "ok"]
    assert f"{len(measured)} runs recomputed" in done.stdout


def test_the_dashboard_runs_on_the_base_install(call: Call) -> None:
    done = call("python", "-c", EVERY_PAGE)
    assert done.returncode == 0, done.stderr


def test_a_browser_shows_the_shipped_board(
    base: Path,
    tmp_path: Path,
    browser: webdriver.Chrome,  # noqa: F811 - a fixture
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BENCH_", "PYTHON"))}
    words = [
        str(base / "bench"),
        "dashboard",
        "--port",
        str(port),
        "--no-browser",
    ]  # no store here: the shipped results
    server = subprocess.Popen(words, cwd=tmp_path, env=clean, stdout=subprocess.DEVNULL)
    try:
        wait(lambda: healthy(f"http://localhost:{port}"))
        drawn(browser, f"http://localhost:{port}", "Leaderboard")
        wait(lambda: "satir/felzenszwalb" in text(browser))
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--matrix", "demo"),
        ("corpus", "make", "--pool", ".", "--out", "corpus"),
        ("submit", "verify", "runs", "--reproduce"),
    ],
    ids=" ".join,
)
def test_a_command_that_needs_an_extra_says_so_in_one_line(
    words: tuple[str, ...], call: Call, runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    done = call("bench", *words)
    assert (done.returncode, done.stderr) == (1, TORCH_IS_MISSING)


def test_any_other_missing_module_is_no_advice() -> None:
    assert extras.advice(ModuleNotFoundError("No module named 'bench.lost'", name="bench.lost")) is None
    submitit = extras.advice(ModuleNotFoundError("No module named 'submitit.core'", name="submitit.core"))
    assert submitit == "this command needs submitit; install it with: pip install 'satir-bench[slurm]'"


def test_every_package_of_an_extra_is_known() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, modules in extras.MODULES.items():
        assert {line.split(">")[0].split("=")[0] for line in declared[extra]} == set(modules.values())
