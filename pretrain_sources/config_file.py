"""Reading a YAML file into a validated model. Errors name the line; files that are too large are not parsed."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from safe_io.files import read_regular

Model = TypeVar("Model", bound=BaseModel)

MOST_BYTES = 2**18  # of a file: five hundred times a card
MOST_DEPTH = 50  # of nested lists and mappings
MOST_DIGITS = 40  # of a number, with sign, point and exponent
MOST_FAULTS = 20  # listed in a message

_MAPPING = "must be keys and values, one per line or {{key: value}}"
WORDS = {  # instead of pydantic's, which are for programmers
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _MAPPING),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list: [a, b]"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "must be a number"),
    "too_short": "must have at least {min_length} entry",
    "string_type": "must be text; quote it",
    "string_pattern_mismatch": "does not match {pattern}",
}


_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
_TEXT, _DATE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if available
Read = TypeVar("Read")


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("no_number", "must be a number, not true or false")
    return value


Whole = Annotated[int, BeforeValidator(_refuse_bool)]  # pydantic alone would take `true` for 1
Number = Annotated[float, BeforeValidator(_refuse_bool)]


class FileError(Exception):
    """A user's file is invalid; the message names the file, the line and the fix."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'x'?`, or the list of known names if none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f": did you mean '{close[0]}'?" if close else f"; known: {', '.join(names)}"


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Read a model from a file.

    Raises:
        FileError: the file is missing or not YAML, or has unknown or duplicate keys or invalid values: all, with their lines.
    """
    root, data = _load(path)
    if not isinstance(data, dict):
        raise FileError(f"{path}: expected keys and values, got {_kind(data)}")
    return _checked(path, root, model, lambda: model.model_validate(data))


def read_yaml_list(path: Path, model: type[Model]) -> list[Model]:
    """Read a list of models from a file.

    Raises:
        FileError: the file is missing, not YAML or not a list, or has invalid entries: all, with their lines.
    """
    root, data = _load(path)
    if not isinstance(data, list):
        raise FileError(f"{path}: expected a list, got {_kind(data)}")
    return _checked(path, root, model, lambda: TypeAdapter(list[model]).validate_python(data))  # type: ignore[valid-type]


def _checked(path: Path, root: yaml.Node, model: type[BaseModel], make: Callable[[], Read]) -> Read:
    try:
        return make()
    except ValidationError as error:
        errors = error.errors(include_url=False)
        lines = [_explain(path, root, model, e) for e in errors[:MOST_FAULTS]]
        more = [f"... and {len(errors) - MOST_FAULTS} more"] if len(errors) > MOST_FAULTS else []
        raise FileError("\n".join([*lines, *more])) from error


def _kind(data: object) -> str:
    return "nothing" if data is None else f"a {type(data).__name__}"


def _load(path: Path) -> tuple[yaml.Node, object]:
    """Return (YAML nodes with their lines, data: lists and mappings of text, numbers, dates and null).

    Raises:
        FileError: the file cannot be read, is not YAML, or uses YAML that is not supported.
    """
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
        if fault := next(_bad_tokens(text), None):
            raise FileError(f"{path}, line {fault}")
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return yaml.ScalarNode("", ""), None
        if faults := list(_bad_nodes(loader, root)):
            raise FileError("\n".join(f"{path}, line {fault}" for fault in faults[:MOST_FAULTS]))
        return root, loader.construct_document(root)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise FileError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _bad_tokens(text: str) -> Iterator[str]:
    """Yield faults before parsing: on deep nesting the parser takes a second per thousand brackets, then fails."""
    depth = 0
    for token in yaml.scan(text, Loader=_Loader):
        line = token.start_mark.line + 1
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > MOST_DEPTH:
            yield f"{line}: nested more than {MOST_DEPTH} deep"
        if isinstance(token, yaml.AliasToken):
            yield f"{line}: aliases (*name) are not supported, they can expand without limit; quote a glob: '*name'"
        if isinstance(token, yaml.TagToken):
            yield f"{line}: tags (!!name) are not supported; quote text that begins with !"


def _bad_nodes(loader: yaml.SafeLoader, root: yaml.Node) -> Iterator[str]:
    """Yield faults: keys that are duplicate or not text, and invalid numbers and dates."""
    for node in _nodes(root):
        line = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            yield from _bad_keys(node)
        elif node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
            yield f"{line}: a number of {len(node.value)} characters; at most {MOST_DIGITS}"
        elif node.tag in (*_NUMBERS, _DATE):
            try:
                loader.construct_object(node)
            except ValueError:
                yield f"{line}: '{node.value}' is not a {'date' if node.tag == _DATE else 'number'}; quote it if it is text"


def _bad_keys(node: yaml.MappingNode) -> Iterator[str]:
    seen: set[str] = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            yield f"{line}: a key must be text, not a list or a mapping"
        elif key.tag != _TEXT:
            yield f"{line}: the key '{key.value}' must be text; quote it"
        elif key.value in seen:
            yield f"{line}: duplicate key '{key.value}'"
        else:
            seen.add(key.value)


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
    value = f", got {error['input']!r}" if not isinstance(error["input"], dict) else ""
    return f"{where}: {name + ': ' if name else ''}{message}{value}"


def _is_key(root: yaml.Node, part: str) -> bool:
    """Return whether a part of a pydantic location is a key in the file (pydantic also adds names of union members)."""
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
            matches = [(key, value) for key, value in node.value if key.value == part]
            if not matches:
                break
            line, node = matches[0][0].start_mark.line + 1, matches[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return int(line)


def _keys(model: type[BaseModel], loc: list[Any]) -> Iterable[str]:
    """Return the keys allowed at this location."""
    models = [model]
    for part in loc:
        if isinstance(part, int):  # `models` are already those of the entries
            continue
        models = [inner for m in models if part in m.model_fields for inner in _models(m.model_fields[part].annotation)]
    return [name for m in models for name in m.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401
    """Return the models in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
