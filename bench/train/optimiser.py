"""The optimiser of a training: its parameter groups and the course of its learning rate."""

import math
from collections import defaultdict

from torch import nn

from backbones.network import Network
from backbones.vit_layers import layers_above
from bench.spec.parts import Schedule

Group = dict[str, object]
_TOKENS = ("pos_embed", "token")  # ends of names that get no weight decay where layers decay, as in BEiT


def lr_factor(schedule: Schedule, step: int, steps: int, power: float = 0.9) -> float:
    """Return the learning rate as a share of the peak, in (0, 1]: linear warm-up, then poly (1 - t)^power or half a cosine."""
    warmup = round(schedule.warmup_frac * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    t = (step - warmup) / max(1, steps - warmup)
    return float((1 - t) ** power) if schedule.decay == "poly" else 0.5 * (1 + math.cos(math.pi * t))


def parameter_groups(network: Network, schedule: Schedule) -> list[Group]:
    """Group the parameters that learn: encoder first; vectors (biases, norms) without weight decay.

    Raises:
        ValueError: layer_decay is below 1 and the encoder is not a plain ViT.
    """
    encoder_lr = schedule.lr * schedule.encoder_lr_scale
    groups: list[Group] = []
    if schedule.layer_decay < 1:
        groups += _decaying(network.encoder, encoder_lr, schedule)
    else:
        groups += _by_dimension(network.encoder, encoder_lr, schedule)
    groups += _by_dimension(network.decoder, schedule.lr, schedule)
    if network.auxiliary is not None:
        groups += _by_dimension(network.auxiliary, schedule.lr, schedule)
    return groups


def _by_dimension(part: nn.Module, lr: float, schedule: Schedule) -> list[Group]:
    parameters = [p for p in part.parameters() if p.requires_grad]
    if not parameters:
        return []
    return [
        {"params": [p for p in parameters if p.ndim < 2], "lr": lr, "weight_decay": 0.0},
        {"params": [p for p in parameters if p.ndim >= 2], "lr": lr, "weight_decay": schedule.weight_decay},
    ]


def _decaying(encoder: nn.Module, lr: float, schedule: Schedule) -> list[Group]:
    """Group an encoder's parameters by layer: lr * layer_decay ^ (layers above it)."""
    learning = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    above = layers_above(learning)
    if learning and not above:
        raise ValueError("layer_decay below 1 needs a plain ViT")
    parts: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in learning.items():
        parts[above[name], parameter.ndim >= 2 and not name.endswith(_TOKENS)].append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * schedule.layer_decay**layers,
            "weight_decay": schedule.weight_decay if decays else 0.0,
        }
        for (layers, decays), parameters in sorted(parts.items(), key=lambda part: part[0])
    ]
