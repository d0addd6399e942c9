"""Code of users as teachers: functions of installed modules that cards name as `module:function`."""

import ast
import hashlib
import importlib
import importlib.util
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.recipe import ENTRY_POINT, PythonTeacher, SamTeacher
from pretrain_sources.teachers.contract import Masks, Settings, Teacher, TeacherError, UnsuitableError
from safe_io.files import read_regular

MOST_SOURCE_BYTES = 2**20
HOW_MARKED = "only a function that is marked where it is defined can be named"

Function = TypeVar("Function", bound=Callable[..., Any])


def offered(function: Function) -> Function:
    """Marks a function that a card may name as `module:function`: a card from a stranger can call no other."""
    function.offered_to_cards = True  # type: ignore[attr-defined]
    return function


def entry_point(name: str) -> Callable[..., Any]:
    """The function that `module:function` names, where it is marked as `offered`; a module without the mark is not imported.

    Raises:
        TeacherError: there is none, or its module cannot be imported. Code that ends the process (os._exit) cannot be caught.
    """
    if stop := entry_obstacle(name):
        raise TeacherError(stop)
    module, function = name.split(":")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except (Exception, SystemExit) as error:  # a user's own module can raise anything
        raise TeacherError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    if getattr(found, "offered_to_cards", None) is not True:
        raise TeacherError(f"{name} is not offered to cards: it is another thing once {module} is imported")
    return cast("Callable[..., Any]", found)


def own(entry: str) -> PythonTeacher:
    """A user's own teacher, `module:function`, with a version that changes with the module's source. Nothing is imported.

    Raises:
        TeacherError: there is none.
    """
    if re.fullmatch(ENTRY_POINT, entry) is None:
        raise TeacherError(f"'{entry}' is no teacher: write module:function, such as mymodule:hot")
    if stop := entry_obstacle(entry):
        raise TeacherError(stop)
    path = _source_file(entry.partition(":")[0])
    assert path is not None
    source = importlib.util.decode_source(read_regular(path, MOST_SOURCE_BYTES))
    return PythonTeacher(entry=entry, version=f"source {hashlib.sha256(source.encode()).hexdigest()[:12]}")


def entry_obstacle(name: str) -> str | None:
    """Why `module:function` cannot be called, and what to do; or None.

    The mark is looked for in the module's file, and nothing is run.
    """
    module, function = name.split(":")
    if "__main__" in module.split("."):
        return f"{module} is a program, not a module to import; name the module that the function is defined in"
    not_offered = f"{name} is not offered to cards: put @pretrain_sources.teachers.offered above it; {HOW_MARKED}"
    try:
        path = _source_file(module)
        tree = None if path is None else ast.parse(read_regular(path, MOST_SOURCE_BYTES))
    except ImportError as error:
        return f"no function {name}: {error}; the module must be installed or on PYTHONPATH"
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{path} cannot be read as Python: {error}; correct it"
    if tree is None:  # built in, or compiled
        return not_offered
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = [node for node in tree.body if isinstance(node, kinds) and node.name == function]
    if not found:
        return f"no function {name}: {path} defines none of this name at its top level; {HOW_MARKED}"
    marks = [ast.unparse(mark) for mark in found[-1].decorator_list]
    return None if {"offered", "teachers.offered", "pretrain_sources.teachers.offered"} & {*marks} else not_offered


def _source_file(module: str) -> Path | None:
    """The file that a module would be imported from; None where it is none of Python. No package around it is imported.

    Raises:
        ImportError: there is no such module.
    """
    places: Sequence[str] | None = None
    spec, name = None, ""
    for part in module.split("."):
        if name and places is None:
            raise ImportError(f"No module named '{module}': '{name}' is not a package")
        name = f"{name}.{part}" if name else part
        # importlib.util.find_spec would import the packages around it
        spec = PathFinder.find_spec(name, places) if places else importlib.util.find_spec(name)
        if spec is None:
            raise ImportError(f"No module named '{name}'")
        places = spec.submodule_search_locations
    path = Path(spec.origin) if spec and spec.has_location and spec.origin else None
    return path if path is not None and path.suffix == ".py" else None


def call_entry(name: str, **arguments: Any) -> Any:  # noqa: ANN401
    """What the function that `module:function` names returns.

    Raises:
        TeacherError: it cannot be named, cannot be imported, or fails.
    """
    with told_as_its_own(PythonTeacher(entry=name, version=""), "could not be opened"):
        return entry_point(name)(**arguments)


@contextmanager
def told_as_its_own(settings: Settings, what: str) -> Iterator[None]:
    """A mistake in a user's own teacher becomes a TeacherError that names its line; the program's own stay as they are."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, TeacherError | UnsuitableError) or not isinstance(settings, PythonTeacher):
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise TeacherError(
            f"{settings.entry} {what}: {type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
        ) from error


def checked(teacher: Teacher, name: str) -> Teacher:
    """The teacher, which then raises a TeacherError where it returns something other than Masks."""

    def ask(image: NDArray[np.uint8]) -> Masks:
        masks = teacher(image)
        if not isinstance(masks, Masks):
            raise TeacherError(
                f"{name} returned {type(masks).__name__}; a teacher returns pretrain_sources.teachers.Masks"
            )
        return masks

    return ask


def named_code(settings: Settings) -> str | None:
    """The `module:function` that is called to make this teacher; None for those of this project."""
    if isinstance(settings, PythonTeacher):
        return settings.entry
    return settings.model if isinstance(settings, SamTeacher) and ":" in settings.model else None
