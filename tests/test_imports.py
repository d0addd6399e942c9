"""Imports between packages go one way, and quick commands do not load torch."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ("bench", "backbones", "pretrain_sources", "results", "dashboard")
GROUND = "safe_io"  # a package that all others may import
MAY_IMPORT = {
    "results": set(),
    "backbones": set(),
    "pretrain_sources": set(),
    "bench": {"results", "backbones", "pretrain_sources"},
    "dashboard": {"results", "pretrain_sources"},
}


def imported(path: Path, at_once: bool = False) -> set[str]:
    """Return what a file imports; at_once: only at import time, not in functions."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("package", HOUSE)
def test_imports_go_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        others = {name.split(".")[0] for name in imported(path)} & set(HOUSE) - {package}
        assert others <= MAY_IMPORT[package], f"{path} imports {others - MAY_IMPORT[package]}"


def test_the_base_package_imports_no_other_package_and_nothing_slow() -> None:
    files = sorted((ROOT / GROUND).rglob("*.py"))
    assert files
    for path in files:
        assert not {name.split(".")[0] for name in imported(path)} & set(HOUSE), path
        others = {name.split(".")[0] for name in imported(path, at_once=True)} - {GROUND}
        assert others <= sys.stdlib_module_names, f"{path} imports {others}"


def test_the_dashboard_imports_only_cards() -> None:
    for path in sorted((ROOT / "dashboard").rglob("*.py")):
        ours = {name for name in imported(path) if name.startswith("pretrain_sources")}
        assert ours <= {"pretrain_sources.card"}, path


def test_the_top_level_packages_are_as_agreed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("no git checkout")
    agreed = {
        "pyproject.toml",
        "README.md",
        *HOUSE,
        GROUND,
        "tests",
        "Makefile",
        "constraints.txt",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE",
    }
    assert {line.split("/")[0] for line in tracked.stdout.splitlines()} == agreed | {".ci", ".gitignore"}


SHIPPED = ["--store", str(ROOT / "results" / "runs"), "--target", "buffalo-udder"]


QUICK = (
    ["--help"],
    ["ls"],
    ["status"],
    ["table"],
    ["data", "check", "scenes"],
    ["compare", "imagenet", "none", *SHIPPED],
    ["claim", "imagenet > none", *SHIPPED],
)


def test_quick_commands_do_not_load_torch(scenes: Path, tmp_path: Path) -> None:
    check_that_torch_stays_unloaded(QUICK, scenes, tmp_path)


def test_only_workers_of_a_run_load_torch(matrix_file: Path, scenes: Path, tmp_path: Path) -> None:
    check_that_torch_stays_unloaded((["run", "--matrix", str(matrix_file), "--jobs", "2"],), scenes, tmp_path)


def check_that_torch_stays_unloaded(commands: Iterable[list[str]], scenes: Path, tmp_path: Path) -> None:
    """Run commands one after the other in one process."""
    (tmp_path / "store").mkdir()
    code = (
        "import sys, dashboard, bench.cli.app\n"
        f"for words in {list(commands)!r}:\n"
        " sys.argv = ['bench', *words]\n"
        " try:\n  bench.cli.app.main()\n"
        " except SystemExit as stop:\n  assert not stop.code, (words, stop.code)\n"
        " assert 'torch' not in sys.modules, f'torch was loaded by {words}'"
    )
    environment = {"BENCH_STORE": str(tmp_path / "store"), "BENCH_DATA": str(scenes), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
