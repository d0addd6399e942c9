"""Sources by name: the shipped cards, a user's own, and names that describe variants of a card.

satir/points-16/top-4       a card with settings       satir/n-10pct-groups-2      a card with a subset of the pool
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
from pretrain_sources.recipe import CocoTeacher, SamTeacher
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

# shipped names besides the cards: studies of settings, size and diversity, controls and a chain
STUDIES = (
    *("satir/points-16", "satir/points-64", "satir/boxes", "satir/points-and-boxes", "satir/iou-0.8", "satir/iou-0.95"),
    *("satir/top-4", "satir/top-16", "satir/top-32", "satir/better-wins", "satir/uncovered-ignore", "satir/binary"),
    "satir/max-area-0.5",
    *("satir/rank-stability", "satir/rank-area", "satir/rank-area-ascending", "satir/rank-random"),
    *("satir/n-1pct", "satir/n-3pct", "satir/n-10pct", "satir/n-30pct"),
    *("satir/n-10pct-groups-1", "satir/n-10pct-groups-2"),
    *("satir~shuffled", "satir~random-rank", "imagenet~permuted", "imagenet+satir"),
    *("pool/simmim/n-10pct", "imagenet+pool/simmim"),
)
_CONTROLS = get_args(Control.model_fields["kind"].annotation)


@functools.cache
def catalog() -> Cards:
    """Return the shipped cards by name."""
    folder = Path(str(resources.files("pretrain_sources"))) / "cards"
    return collect(sorted(folder.glob("*.yaml")))


def collect(paths: Iterable[Path], known: Cards = MappingProxyType({})) -> Cards:
    """Add the cards in these files to `known`, with paths relative to each card's folder resolved.

    Raises:
        FileError: a file is invalid, or two cards have the same name.
    """
    table, files = dict(known), dict[str, Path]()
    for path in paths:
        card = read_yaml(path, SourceCard)
        if card.name in table or _has_meaning(card.name, table):
            other = f"{files[card.name]} has it too" if card.name in files else "it already names a source"
            raise FileError(f"{path}: duplicate name '{card.name}': {other}; choose another name")
        files[card.name] = path
        if card.control is not None and (card.subset or card.long or not card.is_random):
            raise FileError(
                f"{path}: a control takes all settings from '{card.control.of}'; "
                "remove recipe, corpus, simmim, subset, start and long"
            )
        table[card.name] = _with_paths(card, path.parent)
    return MappingProxyType(table)


def own_card(path: Path, known: Cards) -> SourceCard:
    """Return the card in this file, which may refer to others.

    Raises:
        FileError: the file is invalid, or its name is taken. UnknownSourceError: it refers to an unknown source.
    """
    cards = collect([path], known)
    return find_source(next(name for name in cards if name not in known), cards)


def _has_meaning(name: str, known: Cards) -> bool:
    """Return whether a name already describes a source, so that no card may redefine it."""
    try:
        find_source(name, known)
    except UnknownSourceError:
        return False
    return True


def _with_paths(card: SourceCard, folder: Path) -> SourceCard:
    """Return the card with the paths of its corpus, checkpoints and masks resolved from its folder."""
    if card.checkpoints:
        resolved = [
            one.model_copy(update={"path": folder.absolute() / one.path}) if one.path else one
            for one in card.checkpoints
        ]
        return card.model_copy(update={"checkpoints": tuple(resolved)})
    if card.corpus is not None:
        return card.model_copy(update={"corpus": card.corpus.model_copy(update={"path": folder / card.corpus.path})})
    teacher = card.recipe.teacher if card.recipe else None
    key = {SamTeacher: "checkpoint", CocoTeacher: "path"}.get(type(teacher), "")  # type: ignore[arg-type]
    if teacher is not None and (own := getattr(teacher, key, None)) and (folder / own).exists():
        given = teacher.model_copy(update={key: str(folder.absolute() / own)})
        return card.model_copy(update={"recipe": card.recipe.model_copy(update={"teacher": given})})  # type: ignore[union-attr]
    return card


def find_source(name: str, known: Cards, passed: tuple[str, ...] = ()) -> SourceCard:
    """Return the card of that name, or the variant that it describes, under its canonical `name`.

    Raises:
        UnknownSourceError: a part of the name is unknown, a setting is invalid, or a chain is circular.
    """
    if len(name) > MOST_CHARACTERS:
        raise UnknownSourceError(
            f"a source's name has {len(name)} characters, {name[:40]}...; at most {MOST_CHARACTERS}"
        )
    if name in passed:
        raise UnknownSourceError(f"circular chain of sources: {' -> '.join((*passed, name))}")
    passed = (*passed, name)
    if len(passed) > MOST_STEPS:
        raise UnknownSourceError(f"'{passed[0]}' is a chain of more than {MOST_STEPS} sources")
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
    """Return the control named SOURCE~KIND."""
    base, _, kind = name.rpartition("~")
    if kind not in _CONTROLS:
        raise UnknownSourceError(f"unknown control '{kind}' in '{name}'{suggestion(kind, _CONTROLS)}")
    description = f"Control of {base}: {_CONTROL_TEXT[kind]}."
    try:
        card = SourceCard(name=name, description=description, control=Control(of=base, kind=kind))  # type: ignore[arg-type]
    except ValidationError as error:
        raise UnknownSourceError(
            f"'{name}' is not a valid name of a source: it is too long or has invalid characters"
        ) from error
    return _controlled(card, known, passed, derived=True)


def _chain(name: str, known: Cards, passed: tuple[str, ...]) -> SourceCard:
    """Return the source named START+SOURCE: the last one, starting from the part before it."""
    begin, _, rest = name.rpartition("+")
    start, last = find_source(begin, known, passed), find_source(rest, known, passed)
    if not last.pretrains or last.start != "random":
        raise UnknownSourceError(f"'{name}': '{rest}' cannot continue another source, it has no pretraining of its own")
    if start.is_random:
        raise UnknownSourceError(f"'{name}': '{begin}' is random; use '{rest}' instead")
    text = f"{last.description} Started from {start.name}."
    seen = [card.training_data for card in (start, last)]
    data = "unknown" if "unknown" in seen else tuple(dict.fromkeys(name for names in seen for name in names))
    name = f"{start.name}+{last.name}"
    return last.model_copy(update={"name": name, "start": start.name, "description": text, "training_data": data})


def closure(cards: Iterable[SourceCard], known: Cards) -> Cards:
    """Return these cards, and all that they start from."""
    table: dict[str, SourceCard] = {}
    waiting = list(cards)
    while waiting:
        card = waiting.pop()
        table[card.name] = card
        if card.start != "random" and card.start not in table:
            waiting.append(find_source(card.start, known))
    return MappingProxyType(table)


def grid(base: str, settings: Mapping[str, Iterable[Value]], known: Cards) -> list[SourceCard]:
    """Return a card for every combination of these values.

    Raises:
        UnknownSourceError: the base or a setting is unknown, or a value is invalid.
    """
    card = find_source(base, known)
    if empty := [name for name, values in settings.items() if not list(values)]:
        raise UnknownSourceError(f"'{base}': no values for {empty[0]}")
    return [
        changed(card, dict(zip(settings, values, strict=True)))
        for values in product(*(tuple(v) for v in settings.values()))
    ]


_CONTROL_TEXT = {
    "shuffled": "the same label maps, each over another image",
    "random-rank": "the ranks within each label map drawn at random",
    "permuted": "each tensor's values permuted within it",
}


def _controlled(card: SourceCard, known: Cards, passed: tuple[str, ...], derived: bool = False) -> SourceCard:
    """Return the control with the settings of its source."""
    assert card.control is not None
    base = find_source(card.control.of, known, passed)
    kind, name = card.control.kind, f"{base.name}~{card.control.kind}" if derived else card.name
    control = card.control.model_copy(update={"of": base.name})
    if base.control is not None:
        raise UnknownSourceError(f"'{name}': '{base.name}' is already a control")
    if kind == "permuted":
        if base.is_random:
            raise UnknownSourceError(f"'{name}': '{base.name}' has no weights to permute")
        data = base.training_data
        return card.model_copy(update={"name": name, "control": control, "start": base.name, "training_data": data})
    if not base.has_labels:
        raise UnknownSourceError(f"'{name}': '{base.name}' has no pseudo-labels to control")
    classes = base.recipe.num_classes if base.recipe else base.corpus.num_classes if base.corpus else None
    if kind == "random-rank" and classes == 2:
        raise UnknownSourceError(f"'{name}': '{base.name}' has only one rank, so ranks cannot be random")
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
