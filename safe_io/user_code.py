"""A user's own code, named `module:function`: finding its file without running it, and importing it.

An imported module can still end its process (os._exit).
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

ENTRY_POINT = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"

_IMPORTING = ("<frozen", str(importlib.__file__))  # files of Python's own frames


class UserCodeError(Exception):
    """A module cannot be imported; the message says why."""


def import_code(module: str) -> ModuleType:
    """Import a module.

    Raises:
        UserCodeError: there is none, or it fails.
    """
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a user's own module can raise anything
        raise UserCodeError(f"{module} cannot be imported: {raised(error, module)}") from error


def raised(error: BaseException, module: str) -> str:
    """Describe an exception in one line, with the last line of this module that it passed, else with the one that raised it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frames = [at for at in traceback.extract_tb(error.__traceback__)[1:] if not at.filename.startswith(_IMPORTING)]
    try:
        own = str(source_file(module))
    except (ImportError, ValueError):  # ValueError: a module without a spec
        own = ""
    at = next((frame for frame in reversed(frames) if frame.filename == own), frames[-1] if frames else None)
    return f"{text} ({at.filename}, line {at.lineno})" if at else text


def source_file(module: str) -> Path | None:
    """Return the file of a module, without importing its packages; None if it is not a Python file.

    Raises:
        ImportError: there is no such module.
    """
    places: Sequence[str] | None = None
    spec, name = None, ""
    for part in module.split("."):
        if name and places is None:
            raise ImportError(f"No module named '{module}': '{name}' is not a package")
        name = f"{name}.{part}" if name else part
        # importlib.util.find_spec would import the parent packages
        spec = PathFinder.find_spec(name, places) if places else importlib.util.find_spec(name)
        if spec is None:
            raise ImportError(f"No module named '{name}'")
        places = spec.submodule_search_locations
    path = Path(spec.origin) if spec and spec.has_location and spec.origin else None
    return path if path is not None and path.suffix == ".py" else None


def search_in(folders: Iterable[Path]) -> None:
    """Search these folders for modules, too, after all others: no module there replaces an installed one."""
    known = {os.path.realpath(place) for place in sys.path}
    for folder in dict.fromkeys(map(os.path.realpath, folders)):
        if folder not in known:
            sys.path.append(folder)


def searched() -> list[str]:
    """Return the folders that are searched for modules, without those of Python and of the installed packages."""
    installed = [os.path.join(os.path.realpath(place), "") for place in (sys.prefix, sys.base_prefix)]
    folders = dict.fromkeys(map(os.path.realpath, sys.path))
    return [place for place in folders if os.path.isdir(place) and not place.startswith(tuple(installed))]
