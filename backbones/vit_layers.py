"""The layers of a plain ViT, from the names of its tensors. Does not import torch."""

import re
from collections.abc import Iterable

_BLOCK = re.compile(r"^(?:model\.)?blocks\.(\d+)\.")
_STEM = re.compile(r"^(?:model\.)?(patch_embed\.|norm_pre\.|pos_embed|(cls|dist|reg|mask)_token)")


def layers_above(names: Iterable[str]) -> dict[str, int]:
    """Map each tensor to the number of layers above it: 0 after the blocks, 1 in the last block, most for embeddings and tokens.

    Empty if the names are not those of a plain ViT. As in BEiT's fine-tuning (Bao et al. 2021) and mmsegmentation's
    LearningRateDecayOptimizerConstructor.
    """
    names = list(names)
    blocks = {name: int(match[1]) for name in names if (match := _BLOCK.match(name))}
    with_attention = {number for name, number in blocks.items() if re.search(r"blocks\.\d+\.attn\.", name)}
    if not with_attention or with_attention != set(blocks.values()):
        return {}
    count = max(blocks.values()) + 1
    return {n: count + 1 if _STEM.match(n) else count - blocks[n] if n in blocks else 0 for n in names}
