"""The wheels that a machine with a GPU lacks: their names, without fetching any."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import extras

FOLDER = Path(__file__).parent / "gpu"
sys.path.append(str(FOLDER))

import wheels  # noqa: E402

HAVE = wheels.HAVE.split(",")


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """What the imports of training, scoring and labelling load here."""
    return wheels.imported(wheels.USED)


@pytest.fixture(scope="module")
def lacking(loaded: set[str]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wheels, "imported", lambda modules: loaded)
        return wheels.lacking(HAVE, [wheels.ALSO], "3.11")


def test_the_wheels_cover_what_is_imported_and_required(loaded: set[str], lacking: list[str]) -> None:
    there = wheels.needed(HAVE, "3.11", strict=False)
    declared = wheels.declared("ours").keys() | wheels.declared("train").keys()
    assert {"pandas", "pyarrow", "pydantic", "optuna", "numba", "scipy"} <= loaded & declared <= there | set(lacking)
    assert set(extras.MODULES["train"].values()) <= there | set(lacking), "`bench run` asks for them"
    for name in lacking:
        assert wheels.needed([name], "3.11") <= there | set(lacking), f"{name} needs them"
    assert wheels.ALSO in lacking


def test_what_is_there_or_only_for_boards_is_left_out(lacking: list[str]) -> None:
    assert not {"torch", "torchvision", "timm", "numpy", "pillow", "streamlit", "altair"} & set(lacking)
    bounds = wheels.expected(lacking, HAVE, "3.11")
    assert any(bound.startswith("torch>=") for bound in bounds)
    assert any(bound.startswith("numpy>=") and "<" in bound for bound in bounds), "numba's"


def test_every_version_is_pinned(lacking: list[str]) -> None:
    assert wheels.pinned(lacking).keys() == set(lacking)


def test_a_package_without_a_version_is_named(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("optuna==5.0.0\n# mako==1.0\nalembic\n")
    with pytest.raises(
        wheels.WheelsError, match=r"^constraints\.txt has no version of alembic, mako: add `name==version`"
    ):
        wheels.pinned(["alembic", "mako", "optuna"], constraints)


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(wheels.WheelsError, match="no-such-package is not installed here"):
        wheels.needed(["no-such-package"], "3.11")
    assert wheels.needed(["no-such-package"], "3.11", strict=False) == {"no-such-package"}
    with pytest.raises(wheels.WheelsError, match="No module named 'no_such_module'"):
        wheels.imported(["no_such_module"])


def test_source_is_built_where_no_wheel_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(*words: str) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        if words[0] == "wheel":
            (tmp_path / f"a_b-1.0-{tag}.whl").write_bytes(b"")
        return subprocess.CompletedProcess(words, int(words[0] == "download"), "", "ERROR: no wheel")

    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(wheels, "_pip", pip)
    tag = "py3-none-any"
    assert wheels.fetch("a-b", "1.0", tmp_path, "3.99").name == "a_b-1.0-py3-none-any.whl"
    assert wheels.fetch("a-b", "1.0", tmp_path, "3.99").exists()
    assert [words[0] for words in asked] == ["download", "wheel"], "what is there is not fetched again"
    (tmp_path / "a_b-1.0-py3-none-any.whl").unlink()
    tag = "cp311-cp311-linux_x86_64"
    with pytest.raises(wheels.WheelsError, match=r"a-b==1\.0 has no wheel for Python 3\.99"):
        wheels.fetch("a-b", "1.0", tmp_path, "3.99")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "python", "fits"),
    [
        ("a-1.0-py3-none-any.whl", "3.12", True),
        ("a-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "3.11", True),
        ("a-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "3.12", False),
        ("a-1.0-cp39-abi3-manylinux_2_28_x86_64.whl", "3.12", True),
        ("a-1.0-cp313-abi3-manylinux_2_28_x86_64.whl", "3.12", False),
        ("a-1.1-py3-none-any.whl", "3.12", False),
    ],
)
def test_a_wheel_for_another_python_is_fetched_again(file: str, python: str, fits: bool, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    assert (wheels._found("a", "1.0", tmp_path, python) is not None) == fits
