"""The card that describes a pretraining source. Importing this loads no torch."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pretrain_sources.identity import Identified
from pretrain_sources.recipe import Recipe

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+/~@-]*$"
LABEL_CONTROLS = ("shuffled", "random-rank")  # these replace labels; the other, permuted, replaces weights


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Subset(_Frozen):
    """A part of the pool: exact, seeded, nested. Size and diversity are two axes."""

    n: int | str | None = Field(
        default=None, description="images: a number, or a share of the pool like 10pct; null: all"
    )
    groups: int | None = Field(default=None, ge=1, description="drawn from this many groups of the pool; null: all")
    seed: int = Field(default=0, ge=0)

    @field_validator("n")
    @classmethod
    def _is_a_number_or_share(cls, n: int | str | None) -> int | str | None:
        share = re.fullmatch(r"(\d+(?:\.\d+)?)pct", n) if isinstance(n, str) else None
        if isinstance(n, str) and not (share and 0 < float(share[1]) <= 100):
            raise ValueError("must be a number of images, or a share above 0pct and up to 100pct")
        if isinstance(n, int) and n < 1:
            raise ValueError("must be at least 1")
        return n

    @model_validator(mode="after")
    def _is_a_part(self) -> "Subset":
        if self.n is None and self.groups is None:
            raise ValueError("a subset names n, groups or both")
        return self

    def count(self, pool: int) -> int:
        """How many images this is of a pool of so many."""
        if isinstance(self.n, str):
            return max(1, round(float(self.n.removesuffix("pct")) / 100 * pool))
        return pool if self.n is None else self.n


class Control(_Frozen):
    """What stands beside a source to say why it works: the same, with one thing broken.

    shuffled: the same label maps, each over another image. random-rank: the ranks within each label map drawn at random.
    permuted: the values of each tensor of the weights permuted within it.
    """

    of: str = Field(description="the source that is controlled")
    kind: Literal["shuffled", "random-rank", "permuted"]
    seed: int = Field(default=0, ge=0)


class ReadyCorpus(_Frozen):
    """A ready-made corpus: images/ and labels/ with PNGs of the same names."""

    path: Path = Field(description="its folder, beside the card's file where it is relative")
    num_classes: int | None = Field(default=None, ge=2, le=255, description="null: its manifest says")


class SourceCard(_Frozen, Identified):
    """Where an encoder's weights come from. Frozen; what shapes a result of it is part of the identity of every run."""

    name: str = Field(min_length=1, max_length=100, pattern=NAME, description="the source's true name")
    description: str = Field(description="one sentence for the board")
    start: str = Field(default="random", description="random, imagenet, or the source that pretraining starts from")
    long: bool = Field(default=False, description="finetuned for as many extra steps as a pretraining stage has")
    recipe: Recipe | None = Field(default=None, description="how the pool's images get pseudo-labels")
    corpus: ReadyCorpus | None = Field(default=None, description="a ready-made corpus in place of a recipe")
    subset: Subset | None = Field(default=None, description="the part of the pool that is used; null: all of it")
    control: Control | None = Field(default=None, description="made from another source; nothing else is given then")
    licence: str | None = Field(default=None, description="of weights or corpus")
    contact: str | None = None
    paper: str | None = None
    training_data: tuple[str, ...] | Literal["unknown"] = Field(
        default="unknown", description="data sets it has seen besides the pool; an empty list says: none"
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> "SourceCard":
        if self.recipe is not None and self.corpus is not None:
            raise ValueError("recipe and corpus exclude each other: a corpus has its labels already")
        if self.subset is not None and self.recipe is None and self.corpus is None:
            raise ValueError("subset needs a recipe or a corpus")
        if self.long and (self.start != "random" or self.recipe or self.corpus):
            raise ValueError("long stands for random weights alone")
        if self.start not in ("random", "imagenet") and not self.pretrains:
            raise ValueError(f"start '{self.start}' needs a recipe or a corpus to go on with")
        return self

    @property
    def pretrains(self) -> bool:
        """Whether an encoder is pretrained on a corpus."""
        return self.recipe is not None or self.corpus is not None

    def identity(self) -> dict[str, Any]:
        """What shapes a result: all but the text for people."""
        shown = self.model_dump(mode="json", exclude={"description", "licence", "contact", "paper", "training_data"})
        # what a path leads to stands in the units that come first, by its content
        (shown["corpus"] or {}).pop("path", None)
        for field in ("checkpoint", "points_per_batch"):
            (shown["recipe"] or {"teacher": {}})["teacher"].pop(field, None)
        return shown
