"""Checkpoint files: reading tensors without running code, and choosing the part that holds the weights."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from safe_io.tensors import SAVE_TENSORS, TensorFileError, check_values, read_content

# parts of a training checkpoint that hold tensors but no weights
_NO_WEIGHTS = r"optim|sched|scaler|loss|callback|hyper_?param|rng|amp$|ema_updater"

Stores = list[tuple[str, dict[str, Tensor]]]  # (keys joined by dots, tensors by name)


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message says what is wrong, where, and what to do."""


def read_tensors(path: Path, inside: str | None = None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read the tensors of a safetensors file, or of a `torch.save` file with tensors and plain values only.

    inside: the part of the file to use if several hold weights: keys joined by dots, e.g. `teacher` or `state.model`.

    Returns the tensors under their names in the file, and notes on what was read and ignored.

    Raises:
        CheckpointError: the file is missing or truncated, contains pickled code (never run), has no tensors, or has several
            parts to choose from.
    """
    try:
        content = read_content(path)
        stores = _inside(list(_stores(content, set())), inside)
        taken, tensors = _chosen(path, content, stores, inside)
        check_values(path, tensors)
    except TensorFileError as error:
        raise CheckpointError(str(error)) from error
    notes = [f"{len(tensors)} tensors read from {path.name}" + (f", inside '{taken}'" if taken else "")]
    if beside := _beside(content, stores, taken, tensors):
        notes.append(f"ignored besides the weights: {listed(beside)}")
    return {name: tensor.detach() for name, tensor in tensors.items()}, tuple(notes)


def listed(names: Iterable[str], quote: bool = False) -> str:
    """Join the first few names for a message."""
    shown = [f"'{name}'" if quote else name for name in names]
    more = f" and {len(shown) - 3} more" if len(shown) > 4 else ""
    return ", ".join(shown[:3] if more else shown) + more


def _inside(stores: Stores, inside: str | None) -> Stores:
    exact = [store for store in stores if store[0] == inside]
    return stores if inside is None else exact or [store for store in stores if store[0].startswith(f"{inside}.")]


def _chosen(
    path: Path, content: Mapping[Any, Any], stores: Stores, inside: str | None
) -> tuple[str, dict[str, Tensor]]:
    """Return the only part that holds weights.

    Raises:
        CheckpointError: there are none, or several.
    """
    if not stores:
        where = f" inside '{inside}'" if inside else ""
        raise CheckpointError(
            f"{path}: no tensors by name{where}, only {listed(map(str, content)) or 'nothing'}; {SAVE_TENSORS}"
        )
    largest = max(len(tensors) for _, tensors in stores)
    rivals = [store for store in stores if 2 * len(store[1]) >= largest]
    if len(rivals) > 1:
        names = [name for name, _ in rivals]
        raise CheckpointError(
            f"{path}: several parts hold weights, {listed(names, quote=True)}; choose one with `inside`, "
            f"e.g. inside: '{names[-1]}'"
        )
    return rivals[0]


def _beside(content: Mapping[Any, Any], stores: Stores, taken: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """List what was not read: other top-level keys, and other parts under the key of the weights."""
    if not taken:
        return [str(key) for key in content if key not in tensors]
    top = taken.partition(".")[0]
    beside = [str(key) for key in content if key != top]
    return beside + [name for name, _ in stores if name != taken and name.startswith(f"{top}.")]


def _stores(content: Mapping[Any, Any], seen: set[int], path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield (keys joined by dots, tensors) of every mapping with tensors, except those of the optimizer and the like."""
    seen.add(id(content))  # a pickle can contain itself
    if tensors := {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}:
        yield path, tensors
    for key, value in content.items():
        known = not isinstance(value, Mapping) or id(value) in seen
        if isinstance(key, str) and not known and not re.search(_NO_WEIGHTS, key.lower()) and path.count(".") < 8:
            yield from _stores(value, seen, f"{path}.{key}" if path else key)
