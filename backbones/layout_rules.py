"""How one library's names and shapes of an encoder's tensors are written down, as rules from our names to theirs."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """One way to name the tensors of an encoder.

    rules: (pattern, replacement) for `re.sub`, applied one after the other. In the name that comes out, `{a,b}` stands for
        tensors that ours joins, and a last `[1/3]` for the second of three equal parts of theirs.
    changes: (pattern of our name, function of their tensor), where the values stand in another order or shape.
    """

    name: str
    rules: Rules = ()
    changes: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = ()

    def part(self, ours: str) -> "Part":
        """Where the tensor that we call `ours` is found in this layout."""
        theirs = ours
        for pattern, replacement in self.rules:
            theirs = re.sub(pattern, replacement, theirs)
        cut = re.fullmatch(r"(.*)\[(\d)/(\d)\]", theirs)
        theirs, piece = (cut[1], (int(cut[2]), int(cut[3]))) if cut else (theirs, (0, 1))
        joined = re.fullmatch(r"(.*)\{(.*)\}(.*)", theirs)
        names = tuple(f"{joined[1]}{one}{joined[3]}" for one in joined[2].split(",")) if joined else (theirs,)
        change = next((function for pattern, function in self.changes if re.search(pattern, ours)), None)
        return Part(names, piece, change)


@dataclass(frozen=True)
class Part:
    """The tensors of a checkpoint that one tensor of ours is made of."""

    names: tuple[str, ...]
    piece: tuple[int, int] = (0, 1)
    change: Callable[[Tensor], Tensor] | None = None

    def make(self, given: Sequence[Tensor]) -> Tensor:
        """Our tensor, of those under `names`.

        Raises:
            RuntimeError: their shapes do not allow it.
        """
        whole = torch.cat(list(given)) if len(given) > 1 else given[0]
        index, count = self.piece
        if count > 1:
            if not whole.ndim or len(whole) % count:
                raise RuntimeError(f"{tuple(whole.shape)} does not fall into {count} equal parts")
            whole = whole.chunk(count)[index]
        return self.change(whole) if self.change else whole
