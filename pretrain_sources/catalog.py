"""Sources by name: the shipped cards, a user's own, and names that say what differs from a card.

satir/points-16/top-4       a card and settings        satir/n-10pct-groups-2      a card and a part of the pool
satir~shuffled              a control of a source      imagenet+satir              a source that starts from another
"""

import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from pydantic import ValidationError

from pretrain_sources.card import Control, SourceCard
from pretrain_sources.config_file import FileError, read_yaml, suggestion
from pretrain_sources.recipe import SamTeacher
from pretrain_sources.variants import UnknownSourceError, Value, changed, parse_settings

__all__ = [
    "STUDIES",
    "Cards",
    "UnknownSourceError",
    "catalog",
    "closure",
    "collect",
    "find_source",
    "grid",
    "own_card",
]

MOST_CHARACTERS, MOST_STEPS = 500, 50  # of a name, and of a chain of sources
Cards = Mapping[str, SourceCard]

# names that ship besides the cards: the studies of settings, size and diversity, controls and a chain
STUDIES = (
    *("satir/points-16", "satir/points-64", "satir/boxes", "satir/points-and-boxes", "satir/iou-0.8", "satir/iou-0.95"),
    *("satir/top-4", "satir/top-16", "satir/top-32", "satir/better-wins", "satir/uncovered-ignore", "satir/binary"),
    *("satir/rank-stability", "satir/rank-area", "satir/rank-area-ascending", "satir/rank-random"),
    *("satir/n-1pct", "satir/n-3pct", "satir/n-10pct", "satir/n-30pct"),
    *("satir/n-10pct-groups-1", "satir/n-10pct-groups-2"),
    *("satir~shuffled", "satir~random-rank", "imagenet~permuted", "imagenet+satir"),
)
_CONTROLS = get_args(Control.model_fields["kind"].annotation)


@functools.cache
def catalog() -> Cards:
    """Name -> card, for every shipped card file."""
    folder = Path(str(resources.files("pretrain_sources"))) / "cards"
    return collect(sorted(folder.glob("*.yaml")))


def collect(paths: Iterable[Path], known: Cards = MappingProxyType({})) -> Cards:
    """`known` and the cards in these files; a ready-made corpus lies beside its card.

    Raises:
        FileError: a file is wrong, or two cards have one name.
    """
    table = dict(known)
    for path in paths:
        card = read_yaml(path, SourceCard)
        if card.name in table or _means_something(card.name, table):
            raise FileError(f"{path}: there is another card of the name '{card.name}'; choose another name")
        if card.control is not None and (card.subset or card.long or not card.is_random):
            raise FileError(
                f"{path}: a control takes all but its name from '{card.control.of}'; nothing else can be given"
            )
        table[card.name] = _beside(card, path.parent)
    return MappingProxyType(table)


def own_card(path: Path, known: Cards) -> SourceCard:
    """The card in this file, which may name others.

    Raises:
        FileError: the file is wrong, or its name is taken. UnknownSourceError: it names a source that is not known.
    """
    cards = collect([path], known)
    return find_source(next(name for name in cards if name not in known), cards)


def _means_something(name: str, known: Cards) -> bool:
    """Whether a name says what it is by itself, so that no card may give it another meaning."""
    try:
        find_source(name, known)
    except UnknownSourceError:
        return False
    return True


def _beside(card: SourceCard, folder: Path) -> SourceCard:
    """The card with its corpus and its checkpoints where its file is."""
    if card.checkpoints:
        found = [
            one.model_copy(update={"path": folder.absolute() / one.path}) if one.path else one
            for one in card.checkpoints
        ]
        return card.model_copy(update={"checkpoints": tuple(found)})
    if card.corpus is not None:
        return card.model_copy(update={"corpus": card.corpus.model_copy(update={"path": folder / card.corpus.path})})
    teacher = card.recipe.teacher if card.recipe else None
    if isinstance(teacher, SamTeacher) and teacher.checkpoint and (folder / teacher.checkpoint).is_file():
        given = teacher.model_copy(update={"checkpoint": str(folder.absolute() / teacher.checkpoint)})
        return card.model_copy(update={"recipe": card.recipe.model_copy(update={"teacher": given})})  # type: ignore[union-attr]
    return card


def find_source(name: str, known: Cards, passed: tuple[str, ...] = ()) -> SourceCard:
    """The card of that name, or the one that the name describes; its own `name` is the canonical one.

    Raises:
        UnknownSourceError: a part of the name is unknown, a setting does not fit, or a chain comes back to itself.
    """
    if len(name) > MOST_CHARACTERS:
        raise UnknownSourceError(
            f"a source's name of {len(name)} characters, {name[:40]}...; at most {MOST_CHARACTERS}"
        )
    if name in passed:
        raise UnknownSourceError(f"the chain loops: {' -> '.join((*passed, name))}")
    passed = (*passed, name)
    if len(passed) > MOST_STEPS:
        raise UnknownSourceError(f"'{passed[0]}' starts from more than {MOST_STEPS} others, one after the other")
    if name in known:
        card = known[name]
        if card.start not in ("random", "imagenet"):
            card = card.model_copy(update={"start": find_source(card.start, known, passed).name})
        return card if card.control is None else _controlled(card, known, passed)
    if "~" in name:
        return _control(name, known, passed)
    if "+" in name:
        return _chain(name, known, passed)
    return _with_settings(name, known)


def _control(name: str, known: Cards, passed: tuple[str, ...]) -> SourceCard:
    """The control that SOURCE~KIND names."""
    base, _, kind = name.rpartition("~")
    if kind not in _CONTROLS:
        raise UnknownSourceError(f"unknown control '{kind}' in '{name}'{suggestion(kind, _CONTROLS)}")
    description = f"Control of {base}: {_TOLD[kind]}."
    try:
        card = SourceCard(name=name, description=description, control=Control(of=base, kind=kind))  # type: ignore[arg-type]
    except ValidationError as error:
        raise UnknownSourceError(
            f"'{name}' cannot be a source's name: it is too long, or holds other characters"
        ) from error
    return _controlled(card, known, passed, derived=True)


def _chain(name: str, known: Cards, passed: tuple[str, ...]) -> SourceCard:
    """The source that START+SOURCE names: the last one, started from what stands before it."""
    begin, _, rest = name.rpartition("+")
    start, last = find_source(begin, known, passed), find_source(rest, known, passed)
    if not last.pretrains or last.start != "random":
        raise UnknownSourceError(
            f"'{name}': '{rest}' cannot go on from another source, it has no pretraining of its own"
        )
    if start.is_random:
        raise UnknownSourceError(f"'{name}': '{begin}' is random already, so '{rest}' alone says the same")
    text = f"{last.description} Started from {start.name}."
    seen = [card.training_data for card in (start, last)]
    data = "unknown" if "unknown" in seen else tuple(dict.fromkeys(name for names in seen for name in names))
    name = f"{start.name}+{last.name}"
    return last.model_copy(update={"name": name, "start": start.name, "description": text, "training_data": data})


def closure(cards: Iterable[SourceCard], known: Cards) -> Cards:
    """These cards, and every one that they start from."""
    table: dict[str, SourceCard] = {}
    waiting = list(cards)
    while waiting:
        card = waiting.pop()
        table[card.name] = card
        if card.start != "random" and card.start not in table:
            waiting.append(find_source(card.start, known))
    return MappingProxyType(table)


def grid(base: str, settings: Mapping[str, Iterable[Value]], known: Cards) -> list[SourceCard]:
    """One card for every combination of these values.

    Raises:
        UnknownSourceError: the base or a setting is unknown, or a value does not fit.
    """
    card = find_source(base, known)
    if empty := [name for name, values in settings.items() if not list(values)]:
        raise UnknownSourceError(f"'{base}': no value is given for {empty[0]}")
    return [
        changed(card, dict(zip(settings, values, strict=True)))
        for values in product(*(tuple(v) for v in settings.values()))
    ]


_TOLD = {
    "shuffled": "the same label maps, each over another image",
    "random-rank": "the ranks within each label map drawn at random",
    "permuted": "each tensor's values permuted within it",
}


def _controlled(card: SourceCard, known: Cards, passed: tuple[str, ...], derived: bool = False) -> SourceCard:
    """The control with all that it takes from what it controls."""
    assert card.control is not None
    base = find_source(card.control.of, known, passed)
    kind, name = card.control.kind, f"{base.name}~{card.control.kind}" if derived else card.name
    control = card.control.model_copy(update={"of": base.name})
    if base.control is not None:
        raise UnknownSourceError(f"'{name}': '{base.name}' is a control already")
    if kind == "permuted":
        if base.is_random:
            raise UnknownSourceError(f"'{name}': '{base.name}' has no weights to permute")
        data = base.training_data
        return card.model_copy(update={"name": name, "control": control, "start": base.name, "training_data": data})
    if not base.pretrains:
        raise UnknownSourceError(f"'{name}': '{base.name}' has no pseudo-labels to control")
    classes = base.recipe.num_classes if base.recipe else base.corpus.num_classes if base.corpus else None
    if kind == "random-rank" and classes == 2:
        raise UnknownSourceError(f"'{name}': '{base.name}' has one rank only, so there is nothing to draw at random")
    return base.model_copy(update={"name": name, "description": card.description, "control": control})


def _with_settings(name: str, known: Cards) -> SourceCard:
    parts = name.split("/")
    for length in range(len(parts) - 1, 0, -1):
        base = known.get("/".join(parts[:length]))
        if base is not None and base.pretrains:
            changes: dict[str, Value] = {}
            for token in parts[length:]:
                changes |= parse_settings(token, base, name)
            return changed(base, changes)
    raise UnknownSourceError(f"unknown source '{name}'{suggestion(name, [*known, *STUDIES])}")
