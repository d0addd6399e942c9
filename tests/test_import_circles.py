"""No module imports, by way of others, itself; an import within a function counts, too."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def modules(package: str) -> dict[str, Path]:
    paths = sorted((ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(path: Path, known: set[str]) -> set[str]:
    """The modules, of those that are known, that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            each = (f"{node.module}.{alias.name}" for alias in node.names)
            names |= {name if name in known else node.module for name in each}
    return names & known


@pytest.mark.parametrize("package", ["pretrain_sources"])
def test_no_imports_go_in_a_circle(package: str) -> None:
    known = modules(package)
    graph = {name: imported(path, known.keys() - {name}) for name, path in known.items()}
    assert sum(map(len, graph.values())) > len(graph)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
