"""The sources that ship with the project: one card a file under cards/."""

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from pretrain_sources.card import SourceCard
from pretrain_sources.yamlfile import read_yaml


@functools.cache
def catalog() -> Mapping[str, SourceCard]:
    """Name -> card, for every shipped card.

    Raises:
        ValueError: two cards have one name.
    """
    folder = Path(str(resources.files("pretrain_sources"))) / "cards"
    cards = [read_yaml(path, SourceCard) for path in sorted(folder.glob("*.yaml"))]
    table = {card.name: card for card in cards}
    if len(table) != len(cards):
        raise ValueError(f"two cards under {folder} have one name")
    return MappingProxyType(table)
