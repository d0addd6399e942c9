"""Noticing that a file has changed: its stamp, reading it as it was listed, and a cache of what was found in it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from safe_io.files import read_regular, sealed, stamp, unsealed, write_whole

Facts = TypeVar("Facts")  # Python 3.11 has no class C[T]
Item = TypeVar("Item")


class FileChangedError(Exception):
    """A file is not the one that was listed a moment ago; the message names it."""


def stamped(*paths: Path) -> str:
    """The paths, each with its stamp.

    Raises:
        OSError: one is not there.
    """
    return " ".join(f"{path} {stamp(path.stat())}" for path in paths)


def read_unchanged(path: Path, sha256: str) -> bytes:
    """The bytes of a file that was listed with this sha256.

    Raises:
        FileChangedError: it has other bytes by now. OSError: it cannot be read.
    """
    data = read_regular(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise FileChangedError(f"{path} has changed since it was listed; let it be and run the same command again")
    return data


@dataclass(frozen=True)
class FactCache(Generic[Facts]):
    """What was found in files, kept in one file from one call to the next. A damaged cache is no cache.

    Attributes:
        path: where it is kept; None: nowhere.
        version: raised when the same files give other facts, or these mean another thing.
        decode: from JSON to facts; what it raises of another thing makes the cache count as damaged.
        encode: from facts to JSON.
        is_sound: whether facts are worth keeping; what is wrong with a file is found anew each time.
        is_shared: entries of other files stay, because several collections of files share the cache.
    """

    path: Path | None
    version: str
    decode: Callable[[Any], Facts]
    encode: Callable[[Facts], Any]
    is_sound: Callable[[Facts], bool] = lambda facts: True
    is_shared: bool = False

    def look_up(
        self,
        wanted: Mapping[str, Item],
        examine: Callable[[Item], Facts],
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, Facts]:
        """The facts of each key: those that are known, and of all others what `examine` finds, in threads.

        wanted: by a key that changes with the files, as `stamped` makes it. report: called with (done, total) of the others.

        Raises:
            OSError: the cache cannot be written.
        """
        known = self._read()
        new = [key for key in wanted if key not in known]
        found = {key: known[key] for key in wanted if key in known}
        with ThreadPoolExecutor() as threads:  # reading files and decoding release the GIL
            all_facts = threads.map(examine, [wanted[key] for key in new])
            for done, (key, facts) in enumerate(zip(new, all_facts, strict=True), start=1):
                found[key] = facts
                report(done, len(new))
        if new:
            self._write((known if self.is_shared else {}) | found)
        return found

    def _read(self) -> dict[str, Facts]:
        if self.path is None:
            return {}
        try:
            rows = json.loads(unsealed(read_regular(self.path), self.version))
            return {key: self.decode(row) for key, row in rows.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _write(self, entries: Mapping[str, Facts]) -> None:
        if self.path is not None:
            rows = {key: self.encode(facts) for key, facts in entries.items() if self.is_sound(facts)}
            write_whole(self.path, sealed(json.dumps(rows).encode(), self.version))
