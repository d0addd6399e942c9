"""Variants of a card: changed settings of its recipe, teacher or subset, and the names that describe them."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pretrain_sources.card import SourceCard, Subset
from pretrain_sources.config_file import suggestion
from pretrain_sources.recipe import META_MODELS, Recipe
from pretrain_sources.simmim import SimMIM

Value = bool | int | float | str
Settings = Recipe | SimMIM | None  # of a card

_SHORT = {
    "points_per_side": "points",
    "pred_iou_thresh": "iou",
    "stability_score_thresh": "stability",
    "top_k": "top",
    "rank_by": "rank",
    "min_area_px": "area",
    "max_area_frac": "max-area",
    "patch_px": "patch",
    "mask_ratio": "ratio",
}
_WORDS: Mapping[str, tuple[str, Value]] = {
    "boxes": ("prompts", "boxes"),
    "points-and-boxes": ("prompts", "points+boxes"),
    "worse-wins": ("overlap", "worse_wins"),
    "better-wins": ("overlap", "better_wins"),
    "binary": ("binary", True),
    **{model.replace("_", "-"): ("model", model) for model in META_MODELS},
}
_SUBSET = re.compile(r"(?:n-(?P<n>\d+(?:\.\d+)?(?:pct)?))?-?(?:groups-(?P<groups>\d+))?(?:-seed-(?P<seed>\d+))?")


class UnknownSourceError(Exception):
    """A name describes no source; the message says why."""


def changed(card: SourceCard, changes: Mapping[str, Value]) -> SourceCard:
    """Return the card with changed settings of its recipe, teacher or subset, named after them.

    Raises:
        UnknownSourceError: the card has no recipe, a setting is unknown, or a value is invalid.
    """
    recipe = settings_of(card)
    if not card.pretrains or card.control is not None:
        raise UnknownSourceError(f"'{card.name}' has no settings of its own to change")
    if recipe is None and set(changes) - set(Subset.model_fields):
        raise UnknownSourceError(f"'{card.name}' has no recipe, so only its subset can be changed")
    fields = _fields(recipe)
    for name in changes:
        if name not in fields:
            raise UnknownSourceError(f"'{card.name}' has no setting '{name}'{suggestion(name, fields)}")
    subset = {name: value for name, value in changes.items() if name in Subset.model_fields}
    try:
        new = recipe and _changed_settings(recipe, {k: v for k, v in changes.items() if k not in subset})
        part = (
            Subset.model_validate((card.subset.model_dump() if card.subset else {}) | subset) if subset else card.subset
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ", ".join(str(p) for p in first["loc"] if p in fields) or ", ".join(changes)
        value = "" if isinstance(first["input"], dict) else f" {first['input']!r}"
        why = first["msg"].removeprefix("Value error, ")
        raise UnknownSourceError(f"'{card.name}' with {where}{value}: {why}") from error
    if (new, part) == (recipe, card.subset):
        return card
    tokens = [_token(name, fields_of(new)[name]) for name in fields_of(new) if _differs(recipe, new, name)]
    tokens += [_subset_token(part)] if part is not None and part != card.subset else []
    text = f"{card.name} with {', '.join(tokens)}."
    own = "simmim" if isinstance(new, SimMIM) else "recipe"
    return card.model_copy(
        update={"name": "/".join([card.name, *tokens]), "description": text, own: new, "subset": part}
    )


def parse_settings(token: str, base: SourceCard, name: str) -> dict[str, Value]:
    """Parse the settings in one part of a name."""
    settings = settings_of(base)
    if token in _WORDS and _WORDS[token][0] in _fields(settings):
        return dict([_WORDS[token]])
    subset = _SUBSET.fullmatch(token)
    if subset and token:
        values = {key: value for key, value in subset.groupdict().items() if value is not None}
        return {key: int(value) if value.isdigit() else value for key, value in values.items()}
    fields = [field for field in _fields(settings) if token.startswith(f"{_prefix(field)}-")]
    if not fields:
        all_fields = _fields(settings)
        words = {word for word, (field, _) in _WORDS.items() if field in all_fields}
        known = sorted({*words, *(f"{_prefix(field)}-..." for field in all_fields)})
        raise UnknownSourceError(f"'{token}' in '{name}' is not a setting of {base.name}{suggestion(token, known)}")
    field = max(fields, key=lambda f: len(_prefix(f)))
    return {field: token.removeprefix(f"{_prefix(field)}-")}


def _token(field: str, value: object) -> str:
    for word, meaning in _WORDS.items():
        if meaning == (field, value):
            return word
    if isinstance(value, tuple | list):
        text = "x".join(f"{part:g}" for part in value)
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value).lower().replace("_", "-")
    return f"{_prefix(field)}-{re.sub(r'[^a-z0-9.-]', '-', text)}"


def _subset_token(subset: Subset) -> str:
    parts = [f"n-{subset.n}"] if subset.n is not None else []
    parts += [f"groups-{subset.groups}"] if subset.groups is not None else []
    return "-".join([*parts, *([f"seed-{subset.seed}"] if subset.seed else [])])


def _prefix(field: str) -> str:
    return _SHORT.get(field, field.replace("_", "-"))


def settings_of(card: SourceCard) -> Settings:
    """Return the settings of a card that a name can change, besides its subset."""
    return card.recipe or card.simmim


def fields_of(settings: Settings) -> dict[str, Any]:
    """Return settings by name, those of a recipe with those of its teacher."""
    if settings is None:
        return {}
    own = {name: getattr(settings, name) for name in type(settings).model_fields if name != "teacher"}
    if isinstance(settings, SimMIM):
        return own
    teacher = settings.teacher
    return own | {name: getattr(teacher, name) for name in type(teacher).model_fields if name != "kind"}


def _fields(settings: Settings) -> dict[str, Any]:
    return fields_of(settings) | dict.fromkeys(Subset.model_fields)


def _differs(old: Settings, new: Settings, field: str) -> bool:
    return bool(fields_of(old).get(field) != fields_of(new).get(field))


def _changed_settings(recipe: Recipe | SimMIM, changes: Mapping[str, Value]) -> Recipe | SimMIM:
    if isinstance(recipe, SimMIM):
        return SimMIM.model_validate(recipe.model_dump() | dict(changes))
    values, teacher = recipe.model_dump(), dict(recipe.teacher.model_dump())
    for name, value in changes.items():
        text = (
            value.replace("-", "_") if isinstance(value, str) and name in ("rank_by", "overlap", "uncovered") else value
        )
        listed = str(value).split("x") if name in ("scales", "box_scales") else text
        (values if name in Recipe.model_fields else teacher)[name] = listed
    return Recipe.model_validate(values | {"teacher": teacher})
