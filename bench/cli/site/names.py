"""File names of the site's pages: readable, unique without regard to case, the same each time."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from results.board import BOARD
from results.store import slug

K = TypeVar("K", bound=Hashable)
MOST = 80  # characters of a name


@dataclass(frozen=True)
class Addresses:
    """Addresses of the pages, relative to the site's root.

    Attributes:
        boards: BOARD and test split -> address. sources: name -> address. runs: (run, submission) -> address.
    """

    boards: Mapping[tuple[Any, ...], str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[tuple[str, str | None], str] = field(default_factory=dict)

    def of_run(self, row: Mapping[Any, Any]) -> str:
        """Return the address of the page of a run. row: of the table."""
        return self.runs[run_key(row)]


def run_key(row: Mapping[Any, Any]) -> tuple[str, str | None]:
    """Return what tells a run apart from all others of a table."""
    submission = row["submission"]
    return str(row["run"]), submission if isinstance(submission, str) else None


def board_key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Return what tells a board apart from all others. row: of its runs or cells."""
    return tuple(row[name] for name in (*BOARD, "test_split"))


def pages(folder: str, names: Mapping[K, str]) -> dict[K, str]:
    """Return the address of the page of each key. names: key -> readable name; several keys may have the same."""
    short = {key: slug(name) for key, name in names.items()}
    times = Counter(name.lower() for name in short.values())
    found = {}
    for key, name in short.items():
        alone = times[name.lower()] == 1 and len(name) <= MOST
        digest = hashlib.sha256(repr(key).encode("utf-8", "backslashreplace")).hexdigest()[:8]
        found[key] = f"{folder}/{name if alone else f'{name[:MOST]}-{digest}'}.html"
    return found
