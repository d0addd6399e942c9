"""The structure of the code: layers with one-way imports, and limits on the size of files and functions."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("safe_io", "results", "backbones", "pretrain_sources", "bench", "dashboard")
MOST_LINES = 300  # of a file
MOST_OF_A_FUNCTION = 50
LONG = {  # longer functions, each with its reason
    "bench/score/weighted_f.py:_missed_sum": "one compiled pass; split up it is slower",
}
# The layers of bench/, lowest first: each may import those before it. Two isolated packages are not in this order.
LAYERS = ("score", "spec", "shipped", "targets", "plan", "train", "run", "submission", "export", "cli", "__main__")
ISOLATED = {"scenes": {"targets"}, "sam_tiny": {"targets", "scenes"}}
MAY_IMPORT_SCENES = {"cli", "sam_tiny"}


def files() -> Iterator[Path]:
    for name in PACKAGES:
        path = ROOT / name
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in files()}


def imports_of(module: str) -> set[str]:
    """Return the modules of this project that a module imports, including late imports."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {
                name if (name := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            }
    return (names & MODULES.keys()) - {module}


GRAPH = {module: imports_of(module) for module in MODULES}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return an import cycle for each module that is in one."""
    paths = []
    for start in sorted(graph):
        came_from: dict[str, str] = {}
        waiting = [start]
        while waiting and start not in came_from:
            module = waiting.pop()
            for after in graph[module]:
                if after not in came_from:
                    came_from[after] = module
                    waiting.append(after)
        if start in came_from:
            path = [start, came_from[start]]
            while path[-1] != start:
                path.append(came_from[path[-1]])
            paths.append(path[::-1])
    return paths


def test_there_are_no_import_cycles() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"], ["c", "b", "c"]], "cycles are detected"
    assert cycles(GRAPH) == []


def package_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "bench" and len(parts) > 1 else None


def test_layers_of_bench_import_only_lower_layers() -> None:
    arrows = defaultdict(set)
    for module, imported in GRAPH.items():
        for other in imported:
            here, there = package_of(module), package_of(other)
            if here and there and here != there:
                arrows[here].add(there)
    assert arrows.keys() | {"score"} <= {*LAYERS, *ISOLATED}, "a new package needs a layer"
    allowed = {"scenes": ISOLATED["scenes"], "sam_tiny": ISOLATED["sam_tiny"]}
    for level, package in enumerate(LAYERS):
        allowed[package] = {*LAYERS[:level], *({"scenes"} if package in MAY_IMPORT_SCENES else ())}
    wrong = {here: there - allowed[here] for here, there in arrows.items() if there - allowed[here]}
    assert not wrong


def test_bench_has_at_most_four_top_level_modules() -> None:
    assert len(list((ROOT / "bench").glob("*.py"))) <= 4


def test_every_package_is_shipped() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {module for module, path in MODULES.items() if path.name == "__init__.py"} <= set(listed)


@pytest.mark.parametrize("path", list(files()), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    if "scenes" in path.parts:
        return  # the renderer has long lists of strokes
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            name = f"{path.relative_to(ROOT).as_posix()}:{node.name}"
            assert lines <= MOST_OF_A_FUNCTION or name in LONG, f"{name} has {lines} lines"
