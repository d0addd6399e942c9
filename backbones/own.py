"""Backbones of a user's own: a function `build(num_classes)` of a module, or of an installed package.

Building one imports its module, so its name must come from the user: see `registry.known_backbone` for other names.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from backbones.spec import DECODERS, IMAGENET_MEAN, IMAGENET_STD, BackboneError, BackboneSpec, Colour
from safe_io.user_code import ENTRY_POINT, UserCodeError, import_code, raised, searched, source_file

VERSION = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}"


@dataclass(frozen=True)
class _Code:
    """The function behind a name. entry: its `module:function`."""

    entry: str
    module: ModuleType
    function: Callable[[int], Any]

    def setting(self, name: str, default: object = None) -> Any:  # noqa: ANN401
        """Return an attribute of the function, else of its module."""
        return getattr(self.function, name, getattr(self.module, name, default))

    @property
    def described(self) -> str:
        """The function and its version: the part of a backbone's identity that stands for its code.

        Raises:
            BackboneError: there is no version.
        """
        version = self.setting("version")
        if version is None:
            raise BackboneError(
                f"{self.entry} has no version: write version = '1' in {self.module.__name__}, "
                "and raise it whenever the network changes"
            )
        text = str(version)
        if not isinstance(version, str | int) or isinstance(version, bool) or not re.fullmatch(VERSION, text):
            raise BackboneError(
                f"the version of {self.entry} is {version!r:.60}: write a text such as '1' or '2024-05', of at most "
                "40 letters, digits and . _ + -"
            )
        return f"{self.entry} version {text}"


def make_spec(name: str, entry: str) -> BackboneSpec:
    """Make the spec of the function `module:function`. Its module is imported; the function is not called.

    Raises:
        BackboneError: there is no such function, or its version, mean or std is wrong.
    """
    code = _find(entry)
    mean, std = _colour(code, "mean", IMAGENET_MEAN), _colour(code, "std", IMAGENET_STD)
    if min(std) <= 0:
        raise BackboneError(f"std of {code.entry} is {std}: every value must be above 0")
    return BackboneSpec(name, "own", code.described, "own", mean, std)


def build(spec: BackboneSpec, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Call the user's function; return (encoder, decoder).

    Raises:
        BackboneError: it is missing, has another version by now, fails, or returns something else.
    """
    code = _find(spec.encoder.partition(" ")[0])
    if code.described != spec.encoder:
        raise BackboneError(f"{spec.name} was {spec.encoder} and is {code.described} now: run the same command again")
    try:
        made = code.function(num_classes)
    except (Exception, SystemExit) as error:  # a user's own function can raise anything
        why = raised(error, code.module.__name__)
        raise BackboneError(f"{code.entry}({num_classes}) failed: {why}") from error
    if not (isinstance(made, tuple | list) and len(made) == 2 and all(isinstance(part, nn.Module) for part in made)):
        got = ", ".join(type(part).__name__ for part in made) if isinstance(made, tuple | list) else type(made).__name__
        raise BackboneError(f"{code.entry} returned {got}: return (encoder, decoder), two torch.nn.Modules")
    encoder, decoder = made
    return encoder, decoder


def _find(entry: str) -> _Code:
    """Import a function.

    Raises:
        BackboneError: there is none, it is not callable, or its module cannot be imported.
    """
    if not re.fullmatch(ENTRY_POINT, entry):
        raise BackboneError(
            f"'{entry}' is neither module:function nor DECODER:ENCODER; timm encoders go with {', '.join(DECODERS)}"
        )
    module_name, _, function = entry.partition(":")
    _require_module(module_name)
    try:
        module = import_code(module_name)
    except UserCodeError as error:
        raise BackboneError(str(error)) from error
    found = getattr(module, function, None)
    if found is None:
        raise BackboneError(
            f"{module.__file__ or module_name} has no function '{function}'; define it, or correct the name"
        )
    if not callable(found):
        raise BackboneError(
            f"{entry} is {type(found).__name__}, not a function: name one that returns (encoder, decoder)"
        )
    return _Code(entry, module, found)


def _require_module(name: str) -> None:
    if "__main__" in name.split("."):
        raise BackboneError(f"{name} is a program, not a module to import; name the module that defines the function")
    try:
        source_file(name)
    except (ImportError, ValueError) as error:
        raise BackboneError(
            f"{error}; searched the installed packages and {', '.join(searched()) or 'no other folder'}: install it, or put "
            f"{name.partition('.')[0]}.py beside the matrix, into the working directory or on PYTHONPATH "
            f"(timm encoders go with {', '.join(DECODERS)})"
        ) from error


def _colour(code: _Code, name: str, default: Colour) -> Colour:
    """Return `mean` or `std`, three numbers for images in 0..1.

    Raises:
        BackboneError: it is something else.
    """
    given = code.setting(name, default)
    try:
        values = tuple(map(float, given))
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(math.isfinite(value) and 0 <= value <= 1 for value in values):
        raise BackboneError(
            f"{name} of {code.entry} is {given!r:.60}: write three numbers for images in 0..1, such as {default}"
        )
    red, green, blue = values
    return red, green, blue
