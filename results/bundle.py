"""Bundles: the format in which the runs of a source are published and submitted to a board.

    NAME/bundle.json        list of files with their sha256, and the environment that made them
    NAME/card.yaml          source card
    NAME/runs/              store: records, evidence, histories, certificates, trials, results of `bench leaks`, and cards of
                            targets that do not ship
    NAME.verdict.json       next to the bundle: the level to which it was verified

Bundles are untrusted. Nothing in a bundle is executed and no path in it is followed: only JSON, safe YAML, CSV, and npz without
pickles are read. A broken bundle in `submissions/` is skipped and never affects other rows.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results.escape import visible
from results.record import SPLIT
from results.store import LEAKS, PLANS, RUNS, SUBMISSIONS, slug
from safe_io.files import MOST_TEXT_BYTES, read_regular

BUNDLE, CARD = "bundle.json", "card.yaml"
OF_A_RUN = ("record.json", "evidence.npz", "history.csv", "certificate.json", "trials.jsonl")
FURTHER_EVIDENCE = re.compile(rf"evidence-{SPLIT}\.npz")  # of a run, too: of a further test split
MOST_FILES, MOST_BYTES = 20_000, 2**28  # per bundle; folders count as files
MOST_PARTS = 7  # of a path in a bundle: runs, target, protocol, source, backbone, run, file

SOURCE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._/@-]*$"  # + and ~ are reserved for chains and controls
Level = Literal["claimed", "recomputed", "spot-checked", "reproduced"]
LEVELS: tuple[Level, ...] = get_args(Level)  # weakest first
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleError(Exception):
    """The bundle cannot be opened; the message says why."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Listing(_Frozen):
    """Content of bundle.json."""

    format: Literal[1] = 1
    name: str = Field(max_length=100, pattern=SOURCE_NAME, description="name of the source")
    made: str = Field(description="UTC time, ISO 8601")
    version: str = Field(description="version of satir-bench that packed it")
    environment: dict[str, str] = Field(description="Python, operating system, and required packages")
    files: dict[str, Sha256] = Field(description="path relative to the bundle, with slashes: sha256")


class Verdict(_Frozen):
    """Content of NAME.verdict.json: the result of verifying a bundle."""

    name: str
    level: Level = Field(description="level reached; claimed: not passed, or not checked")
    bundle_sha256: Sha256 = Field(description="of bundle.json; binds the verdict to this bundle")
    checked: str = Field(description="UTC time, ISO 8601")
    version: str = Field(description="version of satir-bench that checked it")
    by: str | None = Field(default=None, max_length=100, description="who checked it (self-declared)")
    tried: Level = Field(description="level that the check aimed at")
    faults: list[str] = Field(description="faults")
    done: list[str] = Field(description="descriptions of the checks that were run")


@dataclass(frozen=True)
class Submission:
    """A verified bundle next to a store."""

    name: str  # of the source
    folder: Path
    level: Level
    listing: Listing
    by: str | None = None  # who checked it (self-declared)

    @property
    def badge(self) -> str:
        """Level of verification and who checked it, according to the verdict."""
        return f"{self.level} by {self.by}" if self.by else self.level

    @property
    def runs(self) -> Path:
        """Root of the store in the bundle."""
        return self.folder / RUNS


def is_of(source: str, name: str) -> bool:
    """Whether a bundle of `name` may contain runs of `source`: the same source, a variant, a control, or a chain with it."""
    return any(part == name or part.startswith((f"{name}/", f"{name}~")) for part in source.split("+"))


def submissions(store: Path) -> tuple[list[Submission], list[str]]:
    """Return (verified bundles in the folder `submissions` next to a store, why each other bundle is left out).

    Unverified bundles are not shown, because their records can claim anything.
    """
    shown, left_out = [], []
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
        except Exception as error:  # untrusted input: one bundle must not affect the others
            one = f"{folder}: {why(error)}"
        left_out += [visible(one)] if isinstance(one, str) else []
        shown += [] if isinstance(one, str) else [one]
    return shown, left_out


def _submission(folder: Path) -> Submission | str:
    """Return the bundle in `folder`, or the reason why it is not shown."""
    if folder.is_symlink():
        return f"{folder}: is a symbolic link; a bundle must be a folder"
    listing, faults = listed(folder)
    level = _level(folder, read_regular(folder / BUNDLE, MOST_TEXT_BYTES, links=False))
    if folder.name != slug(listing.name):
        faults.append(f"bundle of '{listing.name}': rename its folder to {slug(listing.name)}")
    if not (folder / RUNS).is_dir():
        faults.append("contains no runs")
    if level == "claimed":
        faults.append(f"{_why_claimed(folder)}: run `bench submit verify {folder}`")
    verdict = read_verdict(folder)
    return (
        f"{folder}: {faults[0]}"
        if faults
        else Submission(listing.name, folder, level, listing, verdict.by if verdict else None)
    )


def why(error: Exception) -> str:
    """Describe an error that a bundle caused."""
    known = isinstance(error, BundleError | OSError)
    return str(error) if known else f"cannot be read ({type(error).__name__}: {str(error)[:200]})"


def verdict_file(bundle: Path) -> Path:
    """Return the path of the verdict on this bundle."""
    return bundle.with_name(f"{bundle.name}.verdict.json")


def read_verdict(bundle: Path) -> Verdict | None:
    """Return the verdict on a bundle, or None if it is missing or unreadable."""
    try:
        return Verdict.model_validate_json(read_regular(verdict_file(bundle), MOST_TEXT_BYTES, links=False))
    except (OSError, ValidationError):
        return None


def _why_claimed(bundle: Path) -> str:
    verdict = read_verdict(bundle)
    if verdict is None and os.path.lexists(verdict_file(bundle)):
        return f"not verified, because {verdict_file(bundle).name} cannot be read"
    if verdict is None:
        return "not verified"
    if verdict.faults:
        return (
            f"verification failed on {verdict.checked} ({len(verdict.faults)} faults, in {verdict_file(bundle).name})"
        )
    return "changed since it was verified"


def _level(bundle: Path, listing: bytes) -> Level:
    verdict = read_verdict(bundle)
    same = verdict is not None and verdict.bundle_sha256 == hashlib.sha256(listing).hexdigest()
    return verdict.level if verdict is not None and same else "claimed"


def listed(folder: Path) -> tuple[Listing, list[str]]:
    """Return (content of bundle.json, every mismatch between it and the files of the bundle).

    Raises:
        BundleError: bundle.json is missing or invalid, a file is a link, or the bundle exceeds the size limits.
    """
    files = _files(folder)
    listing = _read_listing(files.pop(BUNDLE, None), folder)
    faults = [f"{name!r} in {BUNDLE} {why}" for name in listing.files if (why := _leads_astray(name)) is not None]
    faults += [f"{name} is listed in {BUNDLE} but missing" for name in listing.files if name not in files]
    faults += [f"{name} is not listed in {BUNDLE}" for name in files if name not in listing.files]
    faults += [f"{name} is not allowed in a bundle" for name in files if not _belongs(name)]
    for name in sorted(files.keys() & listing.files.keys()):
        if hashlib.sha256(read_regular(files[name], MOST_BYTES, links=False)).hexdigest() != listing.files[name]:
            faults.append(f"{name} was changed after it was packed: its checksum differs")
    return listing, [visible(fault) for fault in faults]


def _files(folder: Path) -> dict[str, Path]:
    """Return path relative to the bundle, with slashes -> file, sorted. Stops as soon as a limit is exceeded.

    Raises:
        BundleError: a file is a link, a device or a pipe, or the bundle exceeds the size limits.
    """
    files: dict[str, Path] = {}
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
                    files[below] = folder / below
                _refuse_huge(folder, count, size, below.count("/") + 1)
    return dict(sorted(files.items()))


def _size(entry: os.DirEntry[str], name: str) -> int:
    """Return the size of a file in bytes; 0 for a folder."""
    if entry.is_symlink():
        raise BundleError(f"{name} is a link; a bundle may contain only regular files")
    if entry.is_dir(follow_symlinks=False):
        return 0
    if not entry.is_file(follow_symlinks=False):
        raise BundleError(f"{name} is not a regular file")
    return entry.stat(follow_symlinks=False).st_size


def _read_listing(path: Path | None, folder: Path) -> Listing:
    if path is None:
        raise BundleError(f"{folder} is not a bundle: it has no {BUNDLE}; create one with `bench submit pack`")
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
            f"{folder} is too large: at least {files:,} files and {size:,} bytes; the limits are {MOST_FILES:,} and {MOST_BYTES:,}"
        )
    if parts > MOST_PARTS:
        raise BundleError(f"{folder} has folders nested deeper than {MOST_PARTS - 1} levels, the limit for a bundle")


def _leads_astray(name: str) -> str | None:
    """Return why a path is not allowed in a bundle, or None."""
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or "\\" in name or ":" in name or ".." in parts:
        return "points outside of the bundle"
    return None if name.isprintable() else "contains unprintable characters"


def _belongs(name: str) -> bool:
    parts = PurePosixPath(name).parts
    if len(parts) == 4 and parts[:2] == (RUNS, LEAKS):
        return name.endswith(".json")
    if len(parts) == 3 and parts[:2] == (RUNS, PLANS):
        return bool(re.fullmatch(r"target-[a-z0-9._-]+\.yaml", parts[2]))
    of_a_run = parts[-1] in OF_A_RUN or FURTHER_EVIDENCE.fullmatch(parts[-1]) is not None
    return name == CARD or (len(parts) == 7 and parts[0] == RUNS and of_a_run)
