"""The card that describes a pretraining source. Does not import torch."""

import fnmatch
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pretrain_sources.config_file import Number, Whole
from pretrain_sources.hashing import Identified
from pretrain_sources.recipe import Recipe
from pretrain_sources.simmim import SimMIM

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+/~@-]*$"
SHA256 = r"^[0-9a-f]{64}$"
MOST_RENAMES = 1000
MOST_IMAGES = 10**9  # of a pool
_REGEX_CHARACTERS = frozenset("\\^$*+?()[]{}|")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Subset(_Frozen):
    """A subset of the pool: exact, seeded, nested. Size and diversity are separate axes."""

    n: Whole | str | None = Field(
        default=None, description="number of images, or a share of the pool such as 10pct; null: all"
    )
    groups: Whole | None = Field(
        default=None, ge=1, le=MOST_IMAGES, description="number of groups to draw the images from; null: all"
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
            raise ValueError("a subset needs n, groups or both")
        return self

    def count(self, pool: int) -> int:
        """Return the number of images for a pool of this size."""
        if isinstance(self.n, str):
            return max(1, round(float(self.n.removesuffix("pct")) / 100 * pool))
        return pool if self.n is None else self.n


class Control(_Frozen):
    """An ablation: a source with one property destroyed.

    shuffled: each label map is assigned to another image. random-rank: the ranks within each label map are random.
    permuted: the values within each tensor of the weights are permuted.
    """

    of: str = Field(description="the source to ablate")
    kind: Literal["shuffled", "random-rank", "permuted"]
    seed: Whole = Field(default=0, ge=0, lt=2**63)


class ReadyCorpus(_Frozen):
    """A ready-made corpus: images/, and labels/ with PNGs of the same names."""

    path: Path = Field(description="its folder; a relative path starts at the card's folder")
    num_classes: Whole | None = Field(
        default=None, ge=2, le=255, description="number of classes; null: as in its manifest"
    )


def _as_prefix(pattern: str, new: str | None) -> str:
    """Suggest a rename entry in place of a regular expression that matches a prefix."""
    bare = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    drops = bare.endswith(".*") and not new
    bare = bare.removesuffix(".*")
    if not bare or _REGEX_CHARACTERS & set(bare):
        return "one entry for each prefix, such as 'layer1.': 'stages.0.'"
    return f"'{bare}': {'null' if drops or new is None else repr(new)}"


class Checkpoint(_Frozen):
    """Published weights of an encoder: tensors only; code in the file is never run."""

    backbones: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        min_length=1,
        max_length=1000,
        description="backbones that can use it; *-efficientnet-lite1 matches all with this encoder",
    )
    path: Path | None = Field(
        default=None, description="a safetensors or tensor-only .pth file; a relative path starts at the card's folder"
    )
    url: str | None = Field(
        default=None, pattern=r"^https?://\S+$", description="or the URL to download it from; needs sha256"
    )
    sha256: str | None = Field(default=None, pattern=SHA256, description="of the file; null: do not check")
    inside: str | None = Field(
        default=None, description="key of the model to use if the file holds several, such as teacher"
    )
    rename: dict[str, str | None] = Field(
        default_factory=dict,
        description="prefix of tensor names: its replacement, or null to drop the tensors; the longest match wins",
    )
    mean: tuple[Number, Number, Number] | None = Field(
        default=None,
        description="input mean on 0..1 used in training; null: that of the backbone's ImageNet weights",
    )
    std: tuple[Number, Number, Number] | None = Field(default=None, description="input standard deviation, likewise")

    @field_validator("rename")
    @classmethod
    def _has_no_patterns(cls, rename: dict[str, str | None]) -> dict[str, str | None]:
        if len(rename) > MOST_RENAMES:
            raise ValueError(f"{len(rename)} entries; at most {MOST_RENAMES}")
        for old, new in rename.items():
            if _REGEX_CHARACTERS & set(old):
                raise ValueError(
                    f"rename takes literal prefixes, and '{old}' looks like a regular expression; "
                    f"write {_as_prefix(old, new)}"
                )
        return rename

    @model_validator(mode="after")
    def _is_one_file(self) -> "Checkpoint":
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path or url")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of the file: its content can change")
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std, or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self

    def is_for(self, backbone: str) -> bool:
        """Return whether the backbone of this name can use it."""
        return any(fnmatch.fnmatchcase(backbone, wanted) for wanted in self.backbones)


class SourceCard(_Frozen, Identified):
    """Where an encoder's weights come from. Everything that affects a result is part of the identity of every run."""

    name: str = Field(min_length=1, max_length=100, pattern=NAME, description="name of the source")
    description: str = Field(description="one sentence for the leaderboard")
    start: str = Field(default="random", description="random, imagenet, or the source that pretraining starts from")
    long: bool = Field(default=False, description="add the steps of a pretraining stage to finetuning")
    recipe: Recipe | None = Field(default=None, description="how to make pseudo-labels for the pool's images")
    corpus: ReadyCorpus | None = Field(default=None, description="a ready-made corpus instead of a recipe")
    simmim: SimMIM | None = Field(
        default=None, description="masked image modelling on the pool's images, without labels, instead of a recipe"
    )
    checkpoints: tuple[Checkpoint, ...] = Field(
        default=(), description="weights instead of a corpus, one file per encoder"
    )
    subset: Subset | None = Field(default=None, description="the part of the pool to use; null: all of it")
    control: Control | None = Field(
        default=None, description="an ablation of another source; excludes all other settings"
    )
    licence: str | None = Field(
        default=None, description="of weights or corpus, such as CC-BY-4.0; required in a submission"
    )
    contact: str | None = Field(
        default=None, description="address for questions, such as you@example.org; required in a submission"
    )
    paper: str | None = Field(default=None, description="publication that describes it")
    training_data: tuple[str, ...] | Literal["unknown"] = Field(
        default="unknown",
        description="data sets it was trained on besides the pool; []: none; the name of a target marks a leak",
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> "SourceCard":
        if self.recipe is not None and self.corpus is not None:
            raise ValueError("recipe and corpus exclude each other: a corpus already has labels")
        if self.simmim is not None and self.has_labels:
            raise ValueError(
                "simmim learns without labels: it excludes recipe and corpus; chain two sources with start"
            )
        if self.checkpoints and (self.pretrains or self.long or self.control or self.start != "random"):
            raise ValueError("checkpoints exclude recipe, corpus, simmim, start, long and control")
        if self.subset is not None and not self.pretrains:
            raise ValueError("subset needs a recipe or a corpus, or simmim")
        if self.long and (self.start != "random" or self.pretrains):
            raise ValueError("long is for random weights only: it excludes start, recipe, corpus and simmim")
        if self.start not in ("random", "imagenet") and not self.pretrains:
            raise ValueError(f"start '{self.start}' needs a recipe or a corpus to continue with, or simmim")
        return self

    @property
    def is_random(self) -> bool:
        """Return whether the encoder's weights are random."""
        return self.start == "random" and not self.pretrains and not self.checkpoints

    def checkpoint_for(self, backbone: str) -> Checkpoint | None:
        """Return the first checkpoint for this backbone, or None."""
        return next((one for one in self.checkpoints if one.is_for(backbone)), None)

    @property
    def has_labels(self) -> bool:
        """Return whether an encoder is pretrained on images with label maps."""
        return self.recipe is not None or self.corpus is not None

    @property
    def pretrains(self) -> bool:
        """Return whether an encoder is pretrained here."""
        return self.has_labels or self.simmim is not None

    @property
    def needs_pool(self) -> bool:
        """Return whether the pool's images are needed."""
        return self.recipe is not None or self.simmim is not None

    def identity(self) -> dict[str, Any]:
        """Return everything that affects a result, without texts for people."""
        excluded = {"description", "licence", "contact", "paper", "training_data", "checkpoints"}
        # files are identified by their content, in the units that use them
        fields = self.model_dump(mode="json", exclude=excluded)
        if self.simmim is None:  # younger than the first results
            del fields["simmim"]
        (fields["corpus"] or {}).pop("path", None)
        teacher = (fields["recipe"] or {"teacher": {}})["teacher"]
        for field in ("checkpoint", "points_per_batch", "path"):
            teacher.pop(field, None)
        return fields
