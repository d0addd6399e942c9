"""Synthetic bundles for tests, and ways to corrupt them."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from examples import record, write

from results.bundle import BUNDLE, CARD, Listing, Verdict, verdict_file
from results.store import LEAKS, RUNS, Store

HUGE = 6 * 2**30
NOT_UTF8 = os.fsdecode(b"caf\xe9")
DEEP = "[" * 100_000 + "]" * 100_000


def make_bundle(place: Path, name: str = "mine", **changes: Any) -> Path:
    """Create PLACE/NAME with three runs of a source, and a verdict of level recomputed."""
    folder = place / name
    for replicate in range(3):
        fields: dict[str, Any] = {
            "source": name,
            "cell": hashlib.sha256(name.encode()).hexdigest(),
            "seed": 10 + replicate,
        }
        write(Store(folder / RUNS), record(replicate, **fields | changes))
    (folder / CARD).write_text(f"name: {name}\n")
    repack(folder)
    return folder


def repack(folder: Path) -> None:
    """Update bundle.json and verdict to the current files, as a deliberate manipulation would."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != BUNDLE]
    sums = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    listing = Listing(name=folder.name, made="2026-01-01", version="0", environment={}, files=sums)
    (folder / BUNDLE).write_text(listing.model_dump_json())
    judge(folder)


def judge(folder: Path) -> None:
    """Write a forged verdict."""
    verdict = Verdict(
        name=folder.name,
        level="recomputed",
        bundle_sha256=hashlib.sha256((folder / BUNDLE).read_bytes()).hexdigest(),
        checked="2026-01-01",
        version="0",
        tried="recomputed",
        faults=[],
        done=[],
    )
    verdict_file(folder).write_text(verdict.model_dump_json())


def run_of(folder: Path) -> Path:
    """Return the folder of the first run of a bundle or store."""
    return min(folder.rglob("record.json")).parent


Spoil = Callable[[Path], object]
Put = Callable[[Path], object]


def deep_folders(folder: Path) -> None:
    """Create 1,200 nested folders, one by one because the path is too long."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def many(folder: Path, make: Put) -> None:
    (folder / "many").mkdir()
    for number in range(20_001):
        make(folder / "many" / str(number))


def in_place_of(path: Path, put: Put) -> None:
    """Replace a file with the result of `put`."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path)


def huge(path: Path) -> None:
    """Create a sparse file of 6 GB."""
    with open(path, "wb") as file:
        file.truncate(HUGE)


def listening(path: Path) -> None:
    """Create a socket; its address may have at most 107 bytes."""
    with socket.socket(socket.AF_UNIX) as one:
        here = os.open(path.parent, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


# invalid files of a bundle, verdict or store
ODD_FILES: dict[str, Put] = {
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a socket": listening,
    "6 GB": huge,
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "deep JSON": lambda path: path.write_text(DEEP),
    "deep JSON in a field": lambda path: path.write_text(f'{{"schema_version": 1, "settings": {DEEP}}}'),
    "not UTF-8": lambda path: path.write_bytes(b'{"name": "caf\xe9"}'),
    "empty": lambda path: path.write_bytes(b""),
    "a number": lambda path: path.write_text("9" * 10_000),
}


def _edit(change: Callable[[dict[str, Any]], None]) -> Spoil:
    def spoil(folder: Path) -> None:
        for path in folder.rglob("record.json"):
            record = json.loads(path.read_text())
            change(record)
            path.write_text(json.dumps(record))
        repack(folder)

    return spoil


def _and_repack(path: str, put: Put) -> Spoil:
    def spoil(folder: Path) -> None:
        in_place_of(next(folder.glob(path), folder / path), put)
        repack(folder)

    return spoil


RECORD, EVIDENCE = f"{RUNS}/*/*/*/*/*/record.json", f"{RUNS}/*/*/*/*/*/evidence.npz"
SPOILS: dict[str, Spoil] = {
    "1,200 folders deep": deep_folders,
    "a file name that is not UTF-8": lambda folder: (folder / NOT_UTF8).write_text("x"),
    "a folder name that is not UTF-8": lambda folder: (folder / RUNS / NOT_UTF8).mkdir(),
    "a name of its own that is not UTF-8": lambda folder: folder.rename(folder.with_name(NOT_UTF8)),
    "a name that moves the cursor": lambda folder: (folder / "\x1b[2J\nrank 1").write_text("x"),
    "a link to everything": lambda folder: (folder / RUNS / "all").symlink_to("/"),
    "20,001 files": lambda folder: many(folder, Path.touch),
    "20,001 folders": lambda folder: many(folder, Path.mkdir),
    "no runs": lambda folder: [shutil.rmtree(folder / RUNS), repack(folder)],
    "other classes": _edit(lambda record: record.update(classes=["background", "person", "tree"])),
    "another rule of ranking": _edit(lambda record: record.update(ranked=False)),
    "evidence of nothing": _and_repack(EVIDENCE, lambda path: path.write_bytes(b"no evidence")),
    "a finding that is deep JSON": _and_repack(f"{RUNS}/{LEAKS}/soda/mine-0.json", ODD_FILES["deep JSON"]),
    "a record that is deep JSON": _and_repack(RECORD, ODD_FILES["deep JSON"]),
    "a record that is deep in a field": _and_repack(RECORD, ODD_FILES["deep JSON in a field"]),
}


def _everywhere(odd: str, put: Put) -> dict[str, Spoil]:
    return {
        f"verdict: {odd}": lambda folder: in_place_of(verdict_file(folder), put),
        f"{BUNDLE}: {odd}": lambda folder: in_place_of(folder / BUNDLE, put),
        f"record: {odd}": lambda folder: in_place_of(run_of(folder) / "record.json", put),
        f"evidence: {odd}": lambda folder: in_place_of(run_of(folder) / "evidence.npz", put),
        f"finding: {odd}": lambda folder: in_place_of(folder / RUNS / LEAKS / "soda" / "mine-0.json", put),
        f"more: {odd}": lambda folder: in_place_of(folder / "more.txt", put),
    }


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the data with a bit flip, truncated, or with a tail of zeros."""
    place = int(rng.integers(len(data)))
    kinds = (
        data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :],
        data[:place],
        data[:place] + bytes(len(data) - place),
    )
    return kinds[int(rng.integers(3))]


for odd, put in ODD_FILES.items():
    SPOILS |= _everywhere(odd, put)
