"""Target cards: where the images and labels of a data set lie, and what they mean."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from bench.targets.frames import Coding
from pretrain_sources.config_file import Number, Whole
from pretrain_sources.image_files import IGNORE, ImageCoding, LabelCoding
from pretrain_sources.lists import SUFFIXES
from pretrain_sources.pool import BLOCK
from results.frozen import Frozen
from results.record import MOST_FURTHER, SPLIT, TEST, TRAIN, VAL

SPLITS = (TRAIN, VAL, TEST)
VAL_SHARE = 0.10
Label = Annotated[Whole, Field(ge=0, le=65_535)]
Below = Annotated[str, Field(min_length=1, max_length=500)]  # a path below the target's folder


@dataclass(frozen=True)
class TargetSpec:
    """What records, boards and networks need of a target, besides its files."""

    name: str
    classes: tuple[str, ...]
    label_note: str  # shown beside every score
    group_note: str  # what a group of frames is


class Index(Frozen):
    """A CSV file with a row for each frame."""

    file: Below
    name: str = Field(default="file", description="column of file names")
    split: str = Field(default="split", description="column of splits")


class Groups(Frozen):
    """What says which frames are not independent of each other."""

    column: str | None = Field(default=None, description="column of the index")
    pattern: str | None = Field(
        default=None, description="regular expression on the frame's name; its groups, or the match"
    )
    folder: bool = Field(default=False, description="the folder that `<path>` begins with")
    within: str | None = Field(
        default=None,
        description="column of the index with larger groups, such as dates, in which these nest",
    )
    note: str = Field(min_length=1, description="what such a group is; shown with the target")
    may_cross: bool = Field(default=False, description="whether a group may have frames in several splits")

    @model_validator(mode="after")
    def _has_one_source(self) -> "Groups":
        if sum((self.column is not None, self.pattern is not None, self.folder)) != 1:
            raise ValueError("set one of column, pattern and folder: true")
        if self.within is not None and self.column is None:
            raise ValueError("groups.within goes with groups.column")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the index that make up a group's name, the larger group first."""
        return tuple(name for name in (self.within, self.column) if name is not None)

    @field_validator("pattern")
    @classmethod
    def _is_an_expression(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        return pattern


class TargetCard(Frozen):
    """The content of a target's card."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    description: str = ""
    classes: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        min_length=2, max_length=IGNORE, description="names in the order of their labels; the first is the background"
    )
    label_note: str = Field(min_length=1, description="who drew the labels and how; shown beside every score")
    how_to_get: str = Field(default="", description="where the data are to be had")
    folder: str | None = Field(
        default=None, description="of the data, relative to this file; null: a folder of the target's name in --data"
    )
    other_folders: tuple[str, ...] = Field(default=(), description="other names of that folder in --data")
    inside: Below | None = Field(default=None, description="folder inside it that holds the rest, where it exists")
    images: Below = Field(
        description="path of an image below the folder, with <name> or <path>, and <split> if need be"
    )
    labels: tuple[Below, ...] = Field(
        min_length=1, max_length=2, description="the same for label maps; a second one must hold the same labels"
    )
    lists: dict[str, Below] | None = Field(default=None, description="split -> list file, a frame a line")
    folders: dict[str, str] | None = Field(default=None, description="split -> folder that stands for <split>")
    index: Index | None = Field(default=None, description="a CSV file that lists frames and splits")
    index_splits: dict[str, str] | None = Field(
        default=None, description="split -> its value in the index; null: train, val and test"
    )
    unlabelled: Below = Field(default="unlabelled", description="folder of images without labels: the pool")
    group_note: str = Field(
        default="block of neighbouring file names; independence between blocks is assumed",
        description="what a group is, without `groups`",
    )
    groups: Groups | None = Field(
        default=None, description=f"null: blocks of {BLOCK} consecutive numbers in file names"
    )
    val_share: Number = Field(
        default=VAL_SHARE, gt=0, lt=1, description="share of train that becomes val where there is no val split"
    )
    ignore: tuple[Label | str, ...] = Field(default=(IGNORE,), description="labels, or colours, of ignored pixels")
    values: dict[str, Label | tuple[Label, ...]] | None = Field(
        default=None, description="class -> its values in the masks; null: 0, 1, 2 ... in the order of `classes`"
    )
    colours: dict[str, str | tuple[str, ...]] | None = Field(
        default=None, description="class -> its colours '#rrggbb', for coloured masks"
    )
    channel: Annotated[Whole, Field(ge=0, le=63)] | None = Field(
        default=None, description="channel of the thermal image, counted from 0, where images have several"
    )
    range: tuple[Number, Number] | None = Field(
        default=None, description="values of deep images that become black and white"
    )
    clip: bool = Field(
        default=False, description="whether values beyond `range` are clipped; otherwise they are an error"
    )
    percentiles: tuple[Number, Number] | None = Field(
        default=None, description="in place of `range`: of each image, such as [0.5, 99.5]"
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _one_or_two(cls, labels: object) -> object:
        return (labels,) if isinstance(labels, str) else labels

    @field_validator("label_note")
    @classmethod
    def _is_complete(cls, note: str) -> str:
        if note.startswith("TODO"):
            raise ValueError("still says TODO: say who drew the labels, and how")
        return note

    @field_validator("classes")
    @classmethod
    def _are_distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for name, count in Counter(classes).items() if count > 1]:
            raise ValueError(f"two classes are called '{twice[0]}'")
        return classes

    @field_validator("images", "labels", "inside", "unlabelled", "lists", "folders")
    @classmethod
    def _stay_below(cls, paths: Any) -> Any:  # noqa: ANN401 - of several fields
        values = [paths] if isinstance(paths, str) else list(paths.values() if isinstance(paths, dict) else paths or ())
        for path in values:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path:
                raise ValueError(f"'{path}' must stay below the target's folder: no '..', no leading '/', no '\\'")
        return paths

    @field_validator("images", "labels")
    @classmethod
    def _name_files(cls, paths: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for path in (paths,) if isinstance(paths, str) else paths:
            names = re.findall(r"<(\w*)>", path)
            if ("name" in names) == ("path" in names) or set(names) - {"name", "path", "split"}:
                raise ValueError(f"'{path}' needs either <name> or <path>, and may have <split>")
            if PurePosixPath(path).suffix.lower() not in (*SUFFIXES, ".*"):
                raise ValueError(f"'{path}' must end in a suffix of images ({', '.join(SUFFIXES)}) or in .*")
            if not re.search(r"<(name|path)>", PurePosixPath(path).name):
                raise ValueError(f"'{path}' needs <name> or <path> in its last part")
        return paths

    @field_validator("range", "percentiles")
    @classmethod
    def _ascends(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and ends[0] >= ends[1]:
            raise ValueError("must be [low, high]: the first number is not below the second")
        return ends

    @model_validator(mode="after")
    def _is_consistent(self) -> "TargetCard":
        if sum(given is not None for given in (self.lists, self.folders, self.index)) != 1:
            raise ValueError("set one of lists, folders and index: what says which frames are in which split")
        if self.index_splits is not None and self.index is None:
            raise ValueError("index_splits goes with index")
        missing = {"train", "test"} - self.split_values.keys()
        if missing:
            raise ValueError(f"there is no {' and no '.join(sorted(missing))} split")
        if bad := [name for name in self.further if not re.fullmatch(SPLIT, name)]:
            raise ValueError(f"'{bad[0]}' is no name of a split: use small letters, digits and '-'")
        if len(self.further) > MOST_FURTHER:
            raise ValueError(f"{len(self.further)} further test splits; at most {MOST_FURTHER}")
        if self.groups is not None and self.groups.column is not None and self.index is None:
            raise ValueError("groups.column goes with index")
        if self.folders is not None and not all("<split>" in path for path in (self.images, *self.labels)):
            raise ValueError("with folders, images and labels need <split>")
        if self.range is not None and self.percentiles is not None:
            raise ValueError("set range or percentiles, not both")
        if self.clip and self.range is None:
            raise ValueError("clip goes with range")
        if self.values is not None and self.colours is not None:
            raise ValueError("set values or colours, not both")
        self.coding  # noqa: B018 - raises where labels do not fit the classes
        return self

    @property
    def split_values(self) -> Mapping[str, str]:
        """Split -> what stands for it: a list file, a folder, or a value in the index."""
        return self.lists or self.folders or self.index_splits or {split: split for split in SPLITS}

    @property
    def further(self) -> tuple[str, ...]:
        """Names of further test splits."""
        return tuple(name for name in self.split_values if name not in SPLITS)

    @property
    def spec(self) -> TargetSpec:
        """What records and boards need."""
        note = self.groups.note if self.groups else self.group_note
        return TargetSpec(self.name, self.classes, self.label_note, note)

    @cached_property
    def coding(self) -> Coding:
        """How images and labels are coded.

        Raises:
            ValueError: a label or colour is used twice, or names no class.
        """
        scaled = self.channel is not None or self.range is not None or self.percentiles is not None
        images = ImageCoding(self.channel, self.range, self.clip, self.percentiles) if scaled else None
        plain = self.values is None and self.colours is None
        if plain and self.ignore == (IGNORE,):
            return Coding(images)
        kind: Literal["values", "colours"] = "colours" if self.colours is not None else "values"
        given = self.colours or self.values or {name: k for k, name in enumerate(self.classes)}
        return Coding(images, LabelCoding(**{kind: self._labels(given)}))

    def _labels(self, given: Mapping[str, Any]) -> dict[int, int]:
        """Return stored value or colour -> class or ignore."""
        if unknown := [name for name in given if name not in self.classes]:
            raise ValueError(f"'{unknown[0]}' is not one of the classes")
        if missing := [name for name in self.classes if name not in given]:
            raise ValueError(f"the class '{missing[0]}' has no value")
        labels: dict[int, int] = {}
        pairs = [(one, k) for k, name in enumerate(self.classes) for one in _several(given[name])]
        for one, label in (*pairs, *((one, IGNORE) for one in self.ignore if self._is_coded(one))):
            stored = _number(one) if self.colours is not None else one
            if not isinstance(stored, int):
                raise ValueError(f"{one!r} is not a value of a mask")
            if stored in labels:
                raise ValueError(f"{one!r} stands for two classes, or for a class and ignore")
            labels[stored] = label
        return labels

    def _is_coded(self, one: object) -> bool:
        """Return whether this entry of `ignore` counts: the default 255 does not for colours."""
        return self.colours is None or isinstance(one, str)


def _several(given: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return given if isinstance(given, tuple) else (given,)


def _number(colour: object) -> int:
    if not isinstance(colour, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        raise ValueError(f"{colour!r} is not a colour; write '#rrggbb', quoted")
    return int(colour[1:], 16)


def card_text(card: TargetCard) -> str:
    """Return a card as YAML for others: without defaults, and without the place of the data."""
    shown = card.model_dump(mode="json", exclude_defaults=True, exclude={"folder"})
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
