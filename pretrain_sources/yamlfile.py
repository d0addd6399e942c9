"""Reading a YAML file into a checked model: a wrong key or value is named with its line."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)


_MAPPING = "must be keys and values, one a line or {{key: value}}"
WORDS = {  # in place of pydantic's, which speak to programmers
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _MAPPING),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list: [a, b]"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "must be a number"),
    "too_short": "must have at least {min_length} entry",
    "string_type": "must be text; quote it",
    "string_pattern_mismatch": "does not have the form that is taken here, {pattern}",
}


class FileError(Exception):
    """A file that a user wrote is wrong; the message names file, line and mend."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`: did you mean 'x'?`, or the list of known names where none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f": did you mean '{close[0]}'?" if close else f"; known: {', '.join(names)}"


def read_yaml(path: Path, model: type[Model]) -> Model:
    """The model that the file describes.

    Raises:
        FileError: the file is missing or no YAML, a key is unknown or double, or a value is wrong: all of them, with their lines.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise FileError(
                f"{path}: aliases (*name) are not taken, a few of them can expand without end; quote a glob: '*name'"
            )
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except FileError:
        raise
    except Exception as error:  # of a broken date or number, the library says so in its own ways
        raise FileError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or root is None:
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise FileError(f"{path}: expected keys and values, found {found}")
    doubles = [f"{path}, line {line}: '{key}' stands twice" for key, line in _double_keys(root)]
    if doubles:
        raise FileError("\n".join(doubles))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise FileError("\n".join(_explain(path, root, model, e) for e in error.errors(include_url=False))) from error


def _explain(path: Path, root: yaml.Node, model: type[BaseModel], error: ErrorDetails) -> str:
    loc = [part for part in error["loc"] if isinstance(part, int) or _is_key(root, part) or error["type"] == "missing"]
    where = f"{path}, line {_line(root, loc)}"
    name = ".".join(str(part) for part in loc)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key '{name}'{suggestion(str(loc[-1]), _keys(model, loc[:-1]))}"
    if error["type"] == "missing":
        return f"{where}: '{name}' is missing"
    message = error["msg"].replace("tuple", "list").removeprefix("Value error, ")
    if error["type"] in WORDS:
        message = WORDS[error["type"]].format(**error.get("ctx", {}))
    found = f", found {error['input']!r}" if not isinstance(error["input"], dict) else ""
    return f"{where}: {name + ': ' if name else ''}{message}{found}"


def _is_key(root: yaml.Node, part: str) -> bool:
    """Whether the part of a pydantic location is a key in the file (pydantic also adds names of union members)."""
    return any(
        isinstance(node, yaml.MappingNode) and any(k.value == part for k, _ in node.value) for node in _nodes(root)
    )


def _nodes(node: yaml.Node) -> Iterable[yaml.Node]:
    yield node
    children = (
        [v for _, v in node.value]
        if isinstance(node, yaml.MappingNode)
        else node.value
        if isinstance(node, yaml.SequenceNode)
        else []
    )
    for child in children:
        yield from _nodes(child)


def _line(node: yaml.Node, loc: list[Any]) -> int:
    line = node.start_mark.line + 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return int(line)


def _keys(model: type[BaseModel], loc: list[Any]) -> Iterable[str]:
    """Every key that may stand at this place."""
    models = [model]
    for part in loc:
        models = [inner for m in models if part in m.model_fields for inner in _models(m.model_fields[part].annotation)]
    return [name for m in models for name in m.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401
    """The models that a value of this type can be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _double_keys(node: yaml.Node) -> Iterable[tuple[str, int]]:
    for inner in _nodes(node):
        if isinstance(inner, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in inner.value:
                if key.value in seen:
                    yield key.value, key.start_mark.line + 1
                seen.add(key.value)
