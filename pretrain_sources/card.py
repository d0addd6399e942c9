"""The card that describes a pretraining source. Importing this loads no torch."""

import fnmatch
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pretrain_sources.config_file import Number, Whole
from pretrain_sources.hashing import Identified
from pretrain_sources.recipe import Recipe

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+/~@-]*$"
SHA256 = r"^[0-9a-f]{64}$"
MOST_RENAMES = 1000
MOST_IMAGES = 10**9  # of a pool
_OF_PATTERNS = frozenset("\\^$*+?()[]{}|")
LABEL_CONTROLS = ("shuffled", "random-rank")  # these replace labels; the other, permuted, replaces weights


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Subset(_Frozen):
    """A part of the pool: exact, seeded, nested. Size and diversity are two axes."""

    n: Whole | str | None = Field(
        default=None, description="images: a number, or a share of the pool like 10pct; null: all"
    )
    groups: Whole | None = Field(
        default=None, ge=1, le=MOST_IMAGES, description="drawn from this many groups of the pool; null: all"
    )
    seed: Whole = Field(default=0, ge=0, lt=2**63)

    @field_validator("n")
    @classmethod
    def _is_a_number_or_share(cls, n: int | str | None) -> int | str | None:
        share = re.fullmatch(r"(\d+(?:\.\d+)?)pct", n) if isinstance(n, str) else None
        if isinstance(n, str) and not (share and 0 < float(share[1]) <= 100):
            raise ValueError("must be a number of images, or a share above 0pct and up to 100pct")
        if isinstance(n, int) and not 1 <= n <= MOST_IMAGES:
            raise ValueError(f"must be at least 1 and at most {MOST_IMAGES:,}")
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
    seed: Whole = Field(default=0, ge=0, lt=2**63)


class ReadyCorpus(_Frozen):
    """A ready-made corpus: images/ and labels/ with PNGs of the same names."""

    path: Path = Field(description="its folder, beside the card's file where it is relative")
    num_classes: Whole | None = Field(default=None, ge=2, le=255, description="null: its manifest says")


def _as_beginning(pattern: str, new: str | None) -> str:
    """What to write in place of a regular expression, as far as it stands for the beginning of a name."""
    bare = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    drops = bare.endswith(".*") and not new
    bare = bare.removesuffix(".*")
    if not bare or _OF_PATTERNS & set(bare):
        return "one entry for each beginning, such as 'layer1.': 'stages.0.'"
    return f"'{bare}': {'null' if drops or new is None else repr(new)}"


class Checkpoint(_Frozen):
    """The weights of an encoder, as somebody hands them round: tensors only, code in a file is never run."""

    backbones: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        min_length=1,
        max_length=1000,
        description="backbones that it is for; *-efficientnet-lite1 says: every one of this encoder",
    )
    path: Path | None = Field(
        default=None, description="a safetensors or tensor-only .pth file, beside the card's file"
    )
    url: str | None = Field(default=None, pattern=r"^https?://\S+$", description="or where to fetch it; needs sha256")
    sha256: str | None = Field(
        default=None, pattern=SHA256, description="of the file; null: whatever stands at the path"
    )
    inside: str | None = Field(default=None, description="which of several models in the file: teacher, for example")
    rename: dict[str, str | None] = Field(
        default_factory=dict,
        description="beginning of tensors' names: what stands there instead, or null to drop them; the longest one counts",
    )
    mean: tuple[Number, Number, Number] | None = Field(
        default=None,
        description="input mean on 0..1 that it was trained with; null: that of the backbone's ImageNet weights",
    )
    std: tuple[Number, Number, Number] | None = Field(default=None, description="and the standard deviation")

    @field_validator("rename")
    @classmethod
    def _has_no_patterns(cls, rename: dict[str, str | None]) -> dict[str, str | None]:
        if len(rename) > MOST_RENAMES:
            raise ValueError(f"{len(rename)} entries; at most {MOST_RENAMES}")
        for old, new in rename.items():
            if _OF_PATTERNS & set(old):
                raise ValueError(
                    f"rename takes the beginning of a name, letter by letter, and '{old}' looks like a regular "
                    f"expression; write {_as_beginning(old, new)}"
                )
        return rename

    @model_validator(mode="after")
    def _is_one_file(self) -> "Checkpoint":
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path or url")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of the file: addresses change what they serve")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self

    def is_for(self, backbone: str) -> bool:
        """Whether it is for the backbone of this name."""
        return any(fnmatch.fnmatchcase(backbone, wanted) for wanted in self.backbones)


class SourceCard(_Frozen, Identified):
    """Where an encoder's weights come from. Frozen; what shapes a result of it is part of the identity of every run."""

    name: str = Field(min_length=1, max_length=100, pattern=NAME, description="the source's true name")
    description: str = Field(description="one sentence for the board")
    start: str = Field(default="random", description="random, imagenet, or the source that pretraining starts from")
    long: bool = Field(default=False, description="finetuned for as many extra steps as a pretraining stage has")
    recipe: Recipe | None = Field(default=None, description="how the pool's images get pseudo-labels")
    corpus: ReadyCorpus | None = Field(default=None, description="a ready-made corpus in place of a recipe")
    checkpoints: tuple[Checkpoint, ...] = Field(
        default=(), description="weights in place of a corpus, a file for each encoder"
    )
    subset: Subset | None = Field(default=None, description="the part of the pool that is used; null: all of it")
    control: Control | None = Field(default=None, description="made from another source; nothing else is given then")
    licence: str | None = Field(
        default=None, description="of weights or corpus, such as CC-BY-4.0; asked for in a submission"
    )
    contact: str | None = Field(
        default=None, description="who can be asked, such as you@example.org; asked for in a submission"
    )
    paper: str | None = Field(default=None, description="where it is described")
    training_data: tuple[str, ...] | Literal["unknown"] = Field(
        default="unknown",
        description="data sets it has seen besides the pool; [] says none, and a target's name marks a leak",
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> "SourceCard":
        if self.recipe is not None and self.corpus is not None:
            raise ValueError("recipe and corpus exclude each other: a corpus has its labels already")
        if self.checkpoints and (self.pretrains or self.long or self.control or self.start != "random"):
            raise ValueError(
                "checkpoints are the whole source: recipe, corpus, start, long and control cannot be given too"
            )
        if self.subset is not None and self.recipe is None and self.corpus is None:
            raise ValueError("subset needs a recipe or a corpus")
        if self.long and (self.start != "random" or self.recipe or self.corpus):
            raise ValueError("long stands for random weights alone")
        if self.start not in ("random", "imagenet") and not self.pretrains:
            raise ValueError(f"start '{self.start}' needs a recipe or a corpus to go on with")
        return self

    @property
    def is_random(self) -> bool:
        """Whether the encoder's weights are random."""
        return self.start == "random" and not self.pretrains and not self.checkpoints

    def checkpoint_for(self, backbone: str) -> Checkpoint | None:
        """The first checkpoint that is for this backbone, or None."""
        return next((one for one in self.checkpoints if one.is_for(backbone)), None)

    @property
    def pretrains(self) -> bool:
        """Whether an encoder is pretrained on a corpus."""
        return self.recipe is not None or self.corpus is not None

    def identity(self) -> dict[str, Any]:
        """What shapes a result: all but the text for people."""
        told = {"description", "licence", "contact", "paper", "training_data"}
        # what a path leads to stands in the units that come first, by its content
        shown = self.model_dump(mode="json", exclude={*told, "checkpoints"})
        (shown["corpus"] or {}).pop("path", None)
        for field in ("checkpoint", "points_per_batch"):
            (shown["recipe"] or {"teacher": {}})["teacher"].pop(field, None)
        return shown
