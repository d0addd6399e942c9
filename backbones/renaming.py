"""Renaming a checkpoint's tensors as a card says, before an encoder is looked for among them."""

from collections.abc import Mapping

from torch import Tensor

from backbones.checkpoint_file import CheckpointError, listed

MAX_NAME = 150  # characters in a tensor's name


def renamed(tensors: Mapping[str, Tensor], renamings: Mapping[str, str | None], told: list[str]) -> dict[str, str]:
    """New name -> original name; what was renamed is told in sentences.

    Raises:
        CheckpointError: a renaming fits no name, gives two tensors one name, or a name is too long.
    """
    if long := next((name for name in tensors if len(name) > MAX_NAME), None):
        raise CheckpointError(f"a tensor's name of {len(long)} characters, {long[:40]}...; at most {MAX_NAME}")
    changed = dict.fromkeys(renamings, 0)
    original: dict[str, str] = {}
    dropped = 0
    for name in tensors:
        new = _new_name(name, renamings, changed)
        if new in original:
            raise CheckpointError(f"the renamings give {original[new]} and {name} one name, {new}")
        if len(new) > MAX_NAME:
            raise CheckpointError(f"renaming {name} gives a name of {len(new)} characters; at most {MAX_NAME}")
        if new:
            original[new] = name
        dropped += not new
    for old, count in changed.items():
        rule = f"renaming '{old}' -> {'null' if renamings[old] is None else repr(renamings[old])}"
        if not count:
            raise CheckpointError(f"{rule}: none of the {len(tensors)} names begins so, such as {listed(tensors)}")
        told.append(f"{rule}: {count} names")
    if dropped:
        told.append(f"{dropped} tensors dropped by the renamings")
    return original


def _new_name(name: str, renamings: Mapping[str, str | None], changed: dict[str, int]) -> str:
    """The name with the longest of its beginnings replaced, which is counted; empty where the tensor is dropped."""
    old = next((start for end in range(len(name), -1, -1) if (start := name[:end]) in renamings), None)
    if old is None:
        return name
    changed[old] += 1
    new = renamings[old]
    return "" if new is None else new + name.removeprefix(old)
