"""Bundles: the form in which a source's runs are handed round and shown on a board.

    NAME/bundle.json        what is in it, each file with its sha256, and where it was made
    NAME/card.yaml          the source
    NAME/runs/              a store: records, evidence, histories, certificates, trials; what `bench leaks` found
    NAME.verdict.json       beside it: how far somebody has checked it

Nothing of a bundle is executed, and no path in it is followed: JSON, safe YAML, CSV, and npz without pickles.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results.store import LEAKS, RUNS, SUBMISSIONS, slug

BUNDLE, CARD = "bundle.json", "card.yaml"
OF_A_RUN = ("record.json", "evidence.npz", "history.csv", "certificate.json", "trials.jsonl")
MOST_FILES, MOST_BYTES = 20_000, 2**28  # of a bundle
MOST_LISTED_BYTES = 2**24  # of bundle.json

SOURCE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._/@-]*$"  # of a card: + and ~ are for chains and controls
Level = Literal["claimed", "recomputed", "spot-checked", "reproduced"]
LEVELS: tuple[Level, ...] = get_args(Level)  # from the weakest
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleError(Exception):
    """A bundle cannot be opened; the message says why."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Listing(_Frozen):
    """bundle.json."""

    format: Literal[1] = 1
    name: str = Field(max_length=100, pattern=SOURCE_NAME, description="the source's true name")
    made: str = Field(description="UTC time, ISO 8601")
    version: str = Field(description="satir-bench version that packed it")
    environment: dict[str, str] = Field(description="Python, operating system, and the packages that the harness needs")
    files: dict[str, Sha256] = Field(description="path below the bundle, with slashes: sha256")


class Verdict(_Frozen):
    """NAME.verdict.json: how far a bundle was checked, and what came of it."""

    name: str
    level: Level = Field(description="claimed: it did not pass, or was not looked at")
    bundle_sha256: Sha256 = Field(description="of bundle.json, so that a verdict never stands for another bundle")
    checked: str = Field(description="UTC time, ISO 8601")
    version: str = Field(description="satir-bench version that checked it")
    tried: Level = Field(description="how far the check was to go")
    faults: list[str] = Field(description="what was found wrong")
    done: list[str] = Field(description="what was checked, in words")


@dataclass(frozen=True)
class Submission:
    """A bundle beside a store."""

    name: str  # of its source
    folder: Path
    level: Level
    listing: Listing

    @property
    def runs(self) -> Path:
        """Its store."""
        return self.folder / RUNS


def is_of(source: str, name: str) -> bool:
    """Whether a run of this source is for a bundle of `name` to bring: its own, a variant's, a control's, or a chain's with it."""
    return any(part == name or part.startswith((f"{name}/", f"{name}~")) for part in source.split("+"))


def submissions(store: Path) -> tuple[list[Submission], list[str]]:
    """(bundles in the folder `submissions` beside a store that were checked and are what was checked; the others, and why not).

    What nobody has checked is not shown: a record can say anything, of itself and of others.
    """
    found, left_out = [], []
    for folder in sorted(path.parent for path in (store.parent / SUBMISSIONS).glob(f"*/{BUNDLE}")):
        try:
            listing, faults = listed(folder)
            level = _level(folder, (folder / BUNDLE).read_bytes())
        except (BundleError, OSError) as error:
            left_out.append(f"{folder}: {error}")
            continue
        if folder.name != slug(listing.name):
            faults.append(f"it is of '{listing.name}', so its folder must be {slug(listing.name)}")
        if level == "claimed":
            faults.append(f"{_why_claimed(folder)}: bench submit verify {folder}")
        left_out += [f"{folder}: {faults[0]}"] if faults else []
        found += [] if faults else [Submission(listing.name, folder, level, listing)]
    return found, left_out


def verdict_file(bundle: Path) -> Path:
    """Where the verdict on this bundle lies."""
    return bundle.with_name(f"{bundle.name}.verdict.json")


def read_verdict(bundle: Path) -> Verdict | None:
    """The verdict on a bundle, or None where there is none that can be read."""
    try:
        return Verdict.model_validate_json(verdict_file(bundle).read_bytes())
    except (OSError, ValidationError):
        return None


def _why_claimed(bundle: Path) -> str:
    told = read_verdict(bundle)
    if told is None:
        return "submitted, and nobody has checked it"
    if told.faults:
        return (
            f"submitted; it did not pass on {told.checked} ({len(told.faults)} faults, in {verdict_file(bundle).name})"
        )
    return "submitted, and changed since somebody has checked it"


def _level(bundle: Path, listing: bytes) -> Level:
    told = read_verdict(bundle)
    same = told is not None and told.bundle_sha256 == hashlib.sha256(listing).hexdigest()
    return told.level if told is not None and same else "claimed"


def listed(folder: Path) -> tuple[Listing, list[str]]:
    """(what a bundle says it holds, every way in which its files are not that).

    Raises:
        BundleError: bundle.json is missing or is none, a file is a link, or there is more than any bundle needs.
    """
    found: dict[str, Path] = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"{below} is a link, and a bundle holds files alone")
        if path.is_file():
            found[below] = path
            size += path.stat().st_size
        elif not path.is_dir():
            raise BundleError(f"{below} is no plain file")
        _refuse_huge(folder, len(found), size)
    listing = _read_listing(found.pop(BUNDLE, None), folder)
    faults = [f"{name!r} in {BUNDLE} {why}" for name in listing.files if (why := _leads_astray(name)) is not None]
    faults += [f"{name} is listed in {BUNDLE} and missing" for name in listing.files if name not in found]
    faults += [f"{name} is not listed in {BUNDLE}" for name in found if name not in listing.files]
    faults += [f"{name} is none of the files that a bundle holds" for name in found if not _belongs(name)]
    for name in sorted(found.keys() & listing.files.keys()):
        if hashlib.sha256(found[name].read_bytes()).hexdigest() != listing.files[name]:
            faults.append(f"{name} was changed after it was packed: its checksum differs")
    return listing, faults


def _read_listing(path: Path | None, folder: Path) -> Listing:
    if path is None:
        raise BundleError(f"{folder} holds no {BUNDLE}: it is no bundle; `bench submit pack` makes one")
    if path.stat().st_size > MOST_LISTED_BYTES:
        raise BundleError(f"{BUNDLE} is larger than any bundle needs")
    try:
        return Listing.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        raise BundleError(f"{BUNDLE}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _refuse_huge(path: Path, files: int, size: int) -> None:
    if files > MOST_FILES or size > MOST_BYTES:
        raise BundleError(
            f"{path} holds {files:,} files and {size:,} bytes or more, and a bundle has at most {MOST_FILES:,} and {MOST_BYTES:,}"
        )


def _leads_astray(name: str) -> str | None:
    """Why a path may not stand in a bundle, or None."""
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or "\\" in name or ":" in name or ".." in parts:
        return "leads out of the bundle"
    return None if name.isprintable() else "holds characters that cannot be printed"


def _belongs(name: str) -> bool:
    parts = PurePosixPath(name).parts
    if len(parts) == 4 and parts[:2] == (RUNS, LEAKS):
        return name.endswith(".json")
    return name == CARD or (len(parts) == 7 and parts[0] == RUNS and parts[-1] in OF_A_RUN)
