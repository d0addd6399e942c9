"""Scores that others printed (origin: paper). Shown apart, never ranked with measured ones."""

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Printed:
    """One printed row; fractions in [0, 1]."""

    target: str
    source: str
    backbone: str
    miou: float
    weighted_f: float


def paper() -> tuple[str, tuple[Printed, ...]]:
    """(what the rows are, the rows) of the paper that this benchmark comes from."""
    text = json.loads(resources.files("results.reference").joinpath("paper.json").read_text())
    return f"{text['title']}. {text['note']}", tuple(Printed(**row) for row in text["rows"])
