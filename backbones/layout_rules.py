"""Rules from our tensor names and shapes of an encoder to those of another library."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]
Changes = tuple[tuple[str, Callable[[Tensor], Tensor]], ...]
Joins = tuple[tuple[str, Callable[[list[Tensor]], Tensor]], ...]
Unused = tuple[tuple[str, Callable[[Tensor], bool]], ...]


def qkv(name: str, *three: str) -> Rules:
    """Return rules for timm's joint `attn.qkv` where `name` has separate queries, keys and values."""
    return ((r"attn\.qkv\.", f"{name}.{{{','.join(three)}}}."),)


@dataclass(frozen=True)
class Layout:
    """One way to name the tensors of an encoder.

    rules: (pattern, replacement) for `re.sub`, applied in order. In the result, `{a,b}` means tensors that ours concatenates,
        and a final `[1/3]` the second of three equal parts of theirs.
    changes: (pattern of our name, function of their tensor), where values have another order or shape.
    joins: (pattern of our name, function of their tensors), where ours is made of `{a,b}` in another way than concatenated.
    unused: (pattern of their name, whether leaving that tensor out changes nothing), for tensors that ours does not have.
    """

    name: str
    rules: Rules = ()
    changes: Changes = ()
    joins: Joins = ()
    unused: Unused = ()

    def part(self, ours: str) -> "Part":
        """Return the source of our tensor `ours` in this layout."""
        theirs = ours
        for pattern, replacement in self.rules:
            theirs = re.sub(pattern, replacement, theirs)
        cut = re.fullmatch(r"(.*)\[(\d)/(\d)\]", theirs)
        theirs, piece = (cut[1], (int(cut[2]), int(cut[3]))) if cut else (theirs, (0, 1))
        joined = re.fullmatch(r"(.*)\{(.*)\}(.*)", theirs)
        names = tuple(f"{joined[1]}{one}{joined[3]}" for one in joined[2].split(",")) if joined else (theirs,)
        change = next((function for pattern, function in self.changes if re.search(pattern, ours)), None)
        join = next((function for pattern, function in self.joins if re.search(pattern, ours)), torch.cat)
        return Part(names, piece, change, join)


@dataclass(frozen=True)
class Part:
    """The tensors of a checkpoint from which one of our tensors is made."""

    names: tuple[str, ...]
    piece: tuple[int, int] = (0, 1)
    change: Callable[[Tensor], Tensor] | None = None
    join: Callable[[list[Tensor]], Tensor] = torch.cat

    def make(self, given: Sequence[Tensor]) -> Tensor:
        """Make our tensor from those under `names`.

        Raises:
            RuntimeError: their shapes do not fit, or their values mean another function.
        """
        whole = self.join(list(given)) if len(given) > 1 else given[0]
        index, count = self.piece
        if count > 1:
            if not whole.ndim or len(whole) % count:
                raise RuntimeError(f"shape {tuple(whole.shape)} cannot be split into {count} equal parts")
            whole = whole.chunk(count)[index]
        return self.change(whole) if self.change else whole
