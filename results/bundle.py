"""Bundles: the form in which a source's runs are handed round and shown on a board.

    NAME/bundle.json        what is in it, each file with its sha256, and where it was made
    NAME/card.yaml          the source
    NAME/runs/              a store: records, evidence, histories, certificates, trials; what `bench leaks` found
    NAME.verdict.json       beside it: how far somebody has checked it

Nothing of a bundle is executed, and no path in it is followed: JSON, safe YAML, CSV, and npz without pickles. Whatever lies in
`submissions/` costs its own row and nothing else.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results.escape import visible
from results.store import LEAKS, RUNS, SUBMISSIONS, slug
from safe_io.files import MOST_TEXT_BYTES, read_regular

BUNDLE, CARD = "bundle.json", "card.yaml"
OF_A_RUN = ("record.json", "evidence.npz", "history.csv", "certificate.json", "trials.jsonl")
MOST_FILES, MOST_BYTES = 20_000, 2**28  # of a bundle, folders counted as files
MOST_PARTS = 7  # of a path below a bundle: runs, target, protocol, source, backbone, run, file

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
    by: str | None = Field(default=None, max_length=100, description="who checked it, as they call themselves")
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
    by: str | None = None  # who reached that verdict, as they call themselves

    @property
    def badge(self) -> str:
        """How far it was checked, and by whom, as the verdict beside it says."""
        return f"{self.level} by {self.by}" if self.by else self.level

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
    place = store.parent / SUBMISSIONS
    try:
        names = sorted(os.listdir(place))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [visible(f"{place}: {error.strerror}")]
    for folder in (place / name for name in names if os.path.lexists(place / name / BUNDLE)):
        try:
            one = _submission(folder)
        except Exception as error:  # nobody foresees all that lies there, and the other bundles must not fall with it
            one = f"{folder}: {why(error)}"
        left_out += [visible(one)] if isinstance(one, str) else []
        found += [] if isinstance(one, str) else [one]
    return found, left_out


def _submission(folder: Path) -> Submission | str:
    """The bundle in this folder, or why it is not shown."""
    if folder.is_symlink():
        return f"{folder}: a link, and a bundle is a folder"
    listing, faults = listed(folder)
    level = _level(folder, read_regular(folder / BUNDLE, MOST_TEXT_BYTES, links=False))
    if folder.name != slug(listing.name):
        faults.append(f"it is of '{listing.name}', so its folder must be {slug(listing.name)}")
    if not (folder / RUNS).is_dir():
        faults.append("it holds no runs")
    if level == "claimed":
        faults.append(f"{_why_claimed(folder)}: bench submit verify {folder}")
    told = read_verdict(folder)
    return (
        f"{folder}: {faults[0]}"
        if faults
        else Submission(listing.name, folder, level, listing, told.by if told else None)
    )


def why(error: Exception) -> str:
    """What to say of whatever went wrong with a bundle."""
    known = isinstance(error, BundleError | OSError)
    return str(error) if known else f"it cannot be read ({type(error).__name__}: {str(error)[:200]})"


def verdict_file(bundle: Path) -> Path:
    """Where the verdict on this bundle lies."""
    return bundle.with_name(f"{bundle.name}.verdict.json")


def read_verdict(bundle: Path) -> Verdict | None:
    """The verdict on a bundle, or None where there is none that can be read."""
    try:
        return Verdict.model_validate_json(read_regular(verdict_file(bundle), MOST_TEXT_BYTES, links=False))
    except (OSError, ValidationError):
        return None


def _why_claimed(bundle: Path) -> str:
    told = read_verdict(bundle)
    if told is None and os.path.lexists(verdict_file(bundle)):
        return f"submitted, and {verdict_file(bundle).name} cannot be read"
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
    found = _files(folder)
    listing = _read_listing(found.pop(BUNDLE, None), folder)
    faults = [f"{name!r} in {BUNDLE} {why}" for name in listing.files if (why := _leads_astray(name)) is not None]
    faults += [f"{name} is listed in {BUNDLE} and missing" for name in listing.files if name not in found]
    faults += [f"{name} is not listed in {BUNDLE}" for name in found if name not in listing.files]
    faults += [f"{name} is none of the files that a bundle holds" for name in found if not _belongs(name)]
    for name in sorted(found.keys() & listing.files.keys()):
        if hashlib.sha256(read_regular(found[name], MOST_BYTES, links=False)).hexdigest() != listing.files[name]:
            faults.append(f"{name} was changed after it was packed: its checksum differs")
    return listing, [visible(fault) for fault in faults]


def _files(folder: Path) -> dict[str, Path]:
    """Path below the bundle, with slashes -> file, sorted. Looks no deeper and no longer than at what a bundle can be.

    Raises:
        BundleError: there is a link, a device or a pipe, or there is more than any bundle needs.
    """
    found: dict[str, Path] = {}
    waiting, count, size = [""], 0, 0
    while waiting:
        above = waiting.pop()
        with os.scandir(folder / above) as entries:
            for entry in entries:
                below, count = f"{above}{entry.name}", count + 1
                size += _size(entry, visible(below))
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{below}/")
                else:
                    found[below] = folder / below
                _refuse_huge(folder, count, size, below.count("/") + 1)
    return dict(sorted(found.items()))


def _size(entry: os.DirEntry[str], name: str) -> int:
    """Bytes of a file; 0 for a folder."""
    if entry.is_symlink():
        raise BundleError(f"{name} is a link, and a bundle holds files alone")
    if entry.is_dir(follow_symlinks=False):
        return 0
    if not entry.is_file(follow_symlinks=False):
        raise BundleError(f"{name} is no plain file")
    return entry.stat(follow_symlinks=False).st_size


def _read_listing(path: Path | None, folder: Path) -> Listing:
    if path is None:
        raise BundleError(f"{folder} holds no {BUNDLE}: it is no bundle; `bench submit pack` makes one")
    try:
        return Listing.model_validate_json(read_regular(path, MOST_TEXT_BYTES, links=False))
    except OSError as error:
        raise BundleError(f"{BUNDLE}: {error.strerror}") from error
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        raise BundleError(f"{BUNDLE}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _refuse_huge(folder: Path, files: int, size: int, parts: int) -> None:
    if files > MOST_FILES or size > MOST_BYTES:
        raise BundleError(
            f"{folder} holds {files:,} files and {size:,} bytes or more, and a bundle has at most {MOST_FILES:,} and {MOST_BYTES:,}"
        )
    if parts > MOST_PARTS:
        raise BundleError(f"{folder} holds folders deeper than {MOST_PARTS - 1}, and no bundle does")


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
