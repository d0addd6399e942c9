"""Checks that the needs of a unit are unchanged when it ends: the store may be deleted during a run.

A unit records its needs before it begins, and checks them before it writes the file that marks it as done.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.plan.unit_folder import CLAIM, folder_of, is_done
from bench.plan.units import Unit
from results.store import Store


class NeedsLostError(Exception):
    """A need of a unit was deleted, damaged or replaced; the message says which and what to do."""


@dataclass(frozen=True)
class Held:
    """The state of a unit's needs when it began."""

    store: Store
    unit: Unit
    files: Mapping[Path, str | None]  # file -> sha256
    claim: int | None  # inode of the unit's lock file

    def check(self) -> None:
        """Check the needs again.

        Raises:
            NeedsLostError: something has changed.
        """
        if why := self.lost():
            raise NeedsLostError(f"{why} while {self.unit} was running: run the same command again to redo it")

    def lost(self) -> str | None:
        """Return what has changed, or None."""
        for need in self.unit.needs:
            if not is_done(self.store, need):
                return f"{folder_of(self.store, need)}, the result of {need}, was deleted or damaged"
        for path, content in self.files.items():
            if _content(path) != content:
                return f"{path} was changed"
        if self.claim not in (None, _inode(_claim(self.store, self.unit))):
            return f"{_claim(self.store, self.unit).parent} was deleted"
        return None


def hold(store: Store, unit: Unit) -> Held:
    """Record the needs of a unit that begins.

    Raises:
        NeedsLostError: a need is missing.
    """
    files = {path: _content(path) for path in _files(store, unit)}
    held = Held(store, unit, files, _inode(_claim(store, unit)))
    held.check()
    return held


def _files(store: Store, unit: Unit) -> Iterator[Path]:
    for need in unit.needs:
        for name in need.telling:
            yield folder_of(store, need) / name
    learner = unit.learner
    if learner is not None and learner != unit:
        yield folder_of(store, learner) / "pretrain.json"


def _claim(store: Store, unit: Unit) -> Path:
    return folder_of(store, unit) / CLAIM


def _content(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
