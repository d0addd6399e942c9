"""Numbers of tensors and values of each encoder stage without building it, to check certificates of weights.

The table is written by `python -m backbones.encoder_sizes > backbones/encoder_sizes.json`. Does not import torch.
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources

from backbones.registry import BACKBONES
from backbones.spec import BackboneSpec

Sizes = Mapping[str, tuple[int, int]]  # stage -> tensors, values


@functools.cache
def _table() -> Mapping[str, Sizes]:
    text = (resources.files("backbones") / "encoder_sizes.json").read_text()
    return {name: {stage: (t, v) for stage, (t, v) in stages.items()} for name, stages in json.loads(text).items()}


@functools.cache
def encoder_sizes(spec: BackboneSpec) -> Sizes:
    """Return (tensors, values) of each encoder stage; a backbone outside the table is built, which imports torch."""
    known = _table()
    return known[spec.name] if BACKBONES.get(spec.name) == spec and spec.name in known else built_sizes(spec)


def built_sizes(spec: BackboneSpec) -> Sizes:
    """Return the same from a network that is built for it."""
    from backbones.network import encoder_on_meta
    from backbones.transfer import stage_of

    sizes: dict[str, tuple[int, int]] = {}
    for name, tensor in encoder_on_meta(spec).state_dict().items():
        tensors, values = sizes.get(stage_of(name), (0, 0))
        sizes[stage_of(name)] = (tensors + 1, values + tensor.numel())
    return sizes


if __name__ == "__main__":
    rows = [f' "{name}": {json.dumps(built_sizes(spec))}' for name, spec in sorted(BACKBONES.items())]
    print("{\n" + ",\n".join(rows) + "\n}")
