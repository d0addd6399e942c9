"""Detecting changed files: stamps, reads checked against a digest, and a cache of facts about files."""

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
    """A file has changed since it was listed; the message names it."""


def stamped(*paths: Path) -> str:
    """Return the paths, each with its stamp.

    Raises:
        OSError: one does not exist.
    """
    return " ".join(f"{path} {stamp(path.stat())}" for path in paths)


def read_unchanged(path: Path, sha256: str) -> bytes:
    """Read a file that was listed with this sha256.

    Raises:
        FileChangedError: its content has changed. OSError: it cannot be read.
    """
    data = read_regular(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise FileChangedError(f"{path} has changed since it was listed; run the same command again")
    return data


@dataclass(frozen=True)
class FactCache(Generic[Facts]):
    """Facts about files, cached in one file across calls. A damaged cache is ignored.

    Attributes:
        path: of the cache; None: no cache.
        version: raised when the same files give other facts, or the facts change their meaning.
        decode: from JSON to facts; an exception marks the cache as damaged.
        encode: from facts to JSON.
        is_sound: whether to cache facts; files with faults are examined each time.
        is_shared: keep entries of other files, because several collections of files share the cache.
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
        """Return the facts of each key: cached ones, and the results of `examine` for the others, in threads.

        wanted: by a key that changes with the files, see `stamped`. report: called with (done, total) of the examined ones.

        Raises:
            OSError: the cache cannot be written.
        """
        known = self._read()
        new = [key for key in wanted if key not in known]
        facts_of = {key: known[key] for key in wanted if key in known}
        with ThreadPoolExecutor() as threads:  # reading files and decoding release the GIL
            all_facts = threads.map(examine, [wanted[key] for key in new])
            for done, (key, facts) in enumerate(zip(new, all_facts, strict=True), start=1):
                facts_of[key] = facts
                report(done, len(new))
        if new:
            self._write((known if self.is_shared else {}) | facts_of)
        return facts_of

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
