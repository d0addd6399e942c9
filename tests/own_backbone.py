"""A user's own backbone for tests: the example of backbones/README.md, as a module in a folder of a test."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "backbones" / "README.md"
EXAMPLE = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)[0]
CREATES_RAN = "open({!r}, 'w').close()\n"  # the first line of a module that must not be imported


class Code:
    """A folder for modules, which a test does not find before it searches there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ran = folder, folder / "RAN"

    def write(self, module: str, source: str = EXAMPLE, *, watched: bool = False) -> Path:
        """Write a module, as after a restart of Python; watched: it creates the file RAN when it is imported."""
        path = self.folder.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CREATES_RAN.format(str(self.ran)) * watched + source)
        self.forget()
        return path

    def forget(self) -> None:
        """Forget the modules that were imported from here."""
        for name in [name for name in sys.modules if name.startswith("own_net")]:
            del sys.modules[name]
        importlib.invalidate_caches()


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Code]:
    """Modules beside the matrices that a test writes into tmp_path; what is searched besides is undone afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a cache is out of date only after a second
    made = Code(tmp_path)
    yield made
    made.forget()


def install(folder: Path, package: str, **points: str) -> None:
    """Make a folder look like an installed package with entry points, name -> module:function."""
    made = folder / f"{package}-1.0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {entry}" for name, entry in points.items()]
    (made / "entry_points.txt").write_text("\n".join(["[satir_bench.backbones]", *lines, ""]))
