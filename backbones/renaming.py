"""Renaming a checkpoint's tensors by the rules of a card, before its layout is recognised."""

from collections.abc import Mapping

from torch import Tensor

from backbones.checkpoint_file import CheckpointError, listed

MAX_NAME = 150  # characters in a tensor's name


def renamed(tensors: Mapping[str, Tensor], renamings: Mapping[str, str | None], notes: list[str]) -> dict[str, str]:
    """Map each new name to its original name; append a note for each renaming.

    Raises:
        CheckpointError: a renaming matches no name or makes names collide, or a name is too long.
    """
    if long := next((name for name in tensors if len(name) > MAX_NAME), None):
        raise CheckpointError(f"a tensor's name has {len(long)} characters, {long[:40]}...; at most {MAX_NAME}")
    changed = dict.fromkeys(renamings, 0)
    original: dict[str, str] = {}
    dropped = 0
    for name in tensors:
        new = _new_name(name, renamings, changed)
        if new in original:
            raise CheckpointError(f"the renamings map {original[new]} and {name} to the same name, {new}")
        if len(new) > MAX_NAME:
            raise CheckpointError(f"renaming {name} makes a name of {len(new)} characters; at most {MAX_NAME}")
        if new:
            original[new] = name
        dropped += not new
    for old, count in changed.items():
        rule = f"renaming '{old}' -> {'null' if renamings[old] is None else repr(renamings[old])}"
        if not count:
            raise CheckpointError(f"{rule}: matches none of the {len(tensors)} names, such as {listed(tensors)}")
        notes.append(f"{rule}: {count} names")
    if dropped:
        notes.append(f"{dropped} tensors dropped by the renamings")
    return original


def _new_name(name: str, renamings: Mapping[str, str | None], changed: dict[str, int]) -> str:
    """Replace the longest matching prefix of a name and count it; empty if the tensor is dropped."""
    old = next((start for end in range(len(name), -1, -1) if (start := name[:end]) in renamings), None)
    if old is None:
        return name
    changed[old] += 1
    new = renamings[old]
    return "" if new is None else new + name.removeprefix(old)
