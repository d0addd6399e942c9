"""What a unit was started from, and whether it is still there when the unit ends: a store can be deleted under a run.

A unit holds its needs before it begins and looks at them again before it writes the file that makes it done.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.plan.unit_folder import CLAIM, folder_of, is_done
from bench.plan.units import Unit
from results.store import Store


class NeedsLostError(Exception):
    """What a unit was started from is gone, torn or another one by now; the message says what and what to do."""


@dataclass(frozen=True)
class Held:
    """The needs of a unit, as they were when it began."""

    store: Store
    unit: Unit
    files: Mapping[Path, str | None]  # file -> what it held
    claim: int | None  # inode of the file whose lock says that the unit is being done

    def check(self) -> None:
        """Looks at everything again.

        Raises:
            NeedsLostError: something is not as it was.
        """
        if why := self.lost():
            raise NeedsLostError(f"{why} while {self.unit} was at work: run the same command again, which does it anew")

    def lost(self) -> str | None:
        """What is gone, or other than it was; None where all is there."""
        for need in self.unit.needs:
            if not is_done(self.store, need):
                return f"{folder_of(self.store, need)}, what {need} left, was deleted or torn"
        for path, content in self.files.items():
            if _content(path) != content:
                return f"{path} was changed"
        if self.claim not in (None, _inode(_claim(self.store, self.unit))):
            return f"{_claim(self.store, self.unit).parent} was deleted"
        return None


def hold(store: Store, unit: Unit) -> Held:
    """The needs of a unit that begins.

    Raises:
        NeedsLostError: something is missing already.
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
