"""User code as teachers: functions of installed modules, named `module:function` in cards."""

import ast
import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pretrain_sources.recipe import PythonTeacher, SamTeacher
from pretrain_sources.teachers.contract import Masks, Settings, Teacher, TeacherError, UnsuitableError
from safe_io.files import read_regular
from safe_io.user_code import ENTRY_POINT, UserCodeError, import_code, raised, source_file

MOST_SOURCE_BYTES = 2**20
HOW_MARKED = "the function must be decorated where it is defined"

Function = TypeVar("Function", bound=Callable[..., Any])


def offered(function: Function) -> Function:
    """Mark a function as usable in cards as `module:function`. Cards can call no other functions."""
    function.offered_to_cards = True  # type: ignore[attr-defined]
    return function


def entry_point(name: str) -> Callable[..., Any]:
    """Import the function `module:function`, which must be marked as `offered`; otherwise the module is not imported.

    Raises:
        TeacherError: there is no such function, or its module cannot be imported. os._exit in a module cannot be caught.
    """
    if stop := entry_obstacle(name):
        raise TeacherError(stop)
    module, function = name.split(":")
    try:
        value = getattr(import_code(module), function, None)
    except UserCodeError as error:
        raise TeacherError(str(error)) from error
    if getattr(value, "offered_to_cards", None) is not True:
        raise TeacherError(f"{name} is not offered to cards: {module} replaces it when imported")
    return cast("Callable[..., Any]", value)


def own(entry: str) -> PythonTeacher:
    """Describe a user's own teacher, `module:function`, versioned by the module's source. Nothing is imported.

    Raises:
        TeacherError: there is no such function.
    """
    if re.fullmatch(ENTRY_POINT, entry) is None:
        raise TeacherError(f"'{entry}' is not a teacher: write module:function, such as mymodule:hot")
    if stop := entry_obstacle(entry):
        raise TeacherError(stop)
    path = source_file(entry.partition(":")[0])
    assert path is not None
    source = importlib.util.decode_source(read_regular(path, MOST_SOURCE_BYTES))
    return PythonTeacher(entry=entry, version=f"source {hashlib.sha256(source.encode()).hexdigest()[:12]}")


def entry_obstacle(name: str) -> str | None:
    """Return why `module:function` cannot be called and what to do, or None. Parses the module's file; nothing is run."""
    module, function = name.split(":")
    if "__main__" in module.split("."):
        return f"{module} is a program, not a module to import; name the module that defines the function"
    not_offered = f"{name} is not offered to cards: decorate it with @pretrain_sources.teachers.offered; {HOW_MARKED}"
    try:
        path = source_file(module)
        tree = None if path is None else ast.parse(read_regular(path, MOST_SOURCE_BYTES))
    except ImportError as error:
        return f"no function {name}: {error}; the module must be installed or on PYTHONPATH"
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{path} cannot be read as Python: {error}; fix it"
    if tree is None:  # built in, or compiled
        return not_offered
    kinds = (ast.FunctionDef, ast.ClassDef)
    definitions = [node for node in tree.body if isinstance(node, kinds) and node.name == function]
    if not definitions:
        return f"no function {name}: {path} has no such function at its top level; {HOW_MARKED}"
    marks = [ast.unparse(mark) for mark in definitions[-1].decorator_list]
    return None if {"offered", "teachers.offered", "pretrain_sources.teachers.offered"} & {*marks} else not_offered


def call_entry(name: str, **arguments: Any) -> Any:  # noqa: ANN401
    """Call `module:function` and return its result.

    Raises:
        TeacherError: it is not offered, cannot be imported, or fails.
    """
    with told_as_its_own(PythonTeacher(entry=name, version=""), "could not be opened"):
        return entry_point(name)(**arguments)


@contextmanager
def told_as_its_own(settings: Settings, what: str) -> Iterator[None]:
    """Turn an exception in a user's own teacher into a TeacherError that names its line; let others pass."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, TeacherError | UnsuitableError) or not isinstance(settings, PythonTeacher):
            raise
        raise TeacherError(f"{settings.entry} {what}: {raised(error, settings.entry.partition(':')[0])}") from error


def checked(teacher: Teacher, name: str) -> Teacher:
    """Wrap a teacher to raise a TeacherError if it returns something other than Masks."""

    def draw(image: NDArray[np.uint8]) -> Masks:
        masks = teacher(image)
        if not isinstance(masks, Masks):
            raise TeacherError(
                f"{name} returned {type(masks).__name__}; a teacher must return pretrain_sources.teachers.Masks"
            )
        return masks

    return draw


def named_code(settings: Settings) -> str | None:
    """Return the `module:function` that makes this teacher; None for those of this project."""
    if isinstance(settings, PythonTeacher):
        return settings.entry
    return settings.model if isinstance(settings, SamTeacher) and ":" in settings.model else None
