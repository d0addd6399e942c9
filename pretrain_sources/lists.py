"""Lists of files written by people or programs, and their comparison with folders.

A byte-order mark, CRLF, blank lines and spaces around fields are accepted. Names match if they are equal in Unicode's composed
form (NFC), which may differ between systems, and up to the case of the suffix. What does not match, or matches twice, is reported
and never guessed.
"""

import csv
import io
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safe_io.files import open_regular

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".npy")  # of images


class ListError(Exception):
    """A list is invalid; the message names the file and the line."""


def composed(name: str) -> str:
    """Return a name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def plain(name: str) -> str:
    """Normalise a path for comparison: composed, forward slashes, without ./ and without an image suffix."""
    name = composed(name.strip()).replace("\\", "/").removeprefix("./")
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def stem_of(name: str) -> str:
    """Return the name of a file as written in a list, without its folder and image suffix."""
    stem, suffix = os.path.splitext(name.replace("\\", "/").rsplit("/", 1)[-1])
    return stem if suffix.lower() in SUFFIXES else stem + suffix


def two_forms(names: Iterable[str]) -> list[str]:
    """Return a fault for each name that is listed in two Unicode forms."""
    forms = Counter(map(composed, set(names)))
    return [f"'{name}' is listed in two Unicode forms" for name, count in forms.items() if count > 1]


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, tuple[str, ...]]]:
    """Read (line, values of these columns) of each row of a CSV file with a header.

    Raises:
        ListError: it cannot be read, a column is missing, or a row has too few or too many fields.
    """
    try:
        with io.TextIOWrapper(open_regular(path), newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            return [(reader.line_num, _fields(row, columns, f"{path}, line {reader.line_num}")) for row in reader]
    except KeyError as error:
        raise ListError(f"{path} has no column {error}; it needs {','.join(columns)}") from error
    except OSError as error:
        raise ListError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ListError(f"cannot read {path}: {error}; save it as plain UTF-8 text") from error
    except csv.Error as error:
        raise ListError(f"cannot read {path}: {error}") from error


def _fields(row: Mapping[str | None, object], columns: Sequence[str], where: str) -> tuple[str, ...]:
    beyond = row.get(None) or []
    if isinstance(beyond, list) and any(field.strip() for field in beyond):
        raise ListError(f"{where}: too many fields; quote a name that contains a comma")
    values = tuple(str(row[column] or "").strip() for column in columns)
    if not all(values):
        raise ListError(f"{where}: too few fields")
    return values


@dataclass(frozen=True)
class Folder:
    """The files of one folder by name, without hidden files such as the ._ files of macOS."""

    path: Path
    names: Mapping[str, Sequence[str]]  # normalised name with suffix -> names on disk

    @classmethod
    def of(cls, path: Path) -> "Folder":
        """List the folder; a missing one is empty."""
        return cls.holding(path, sorted(os.listdir(path)) if path.is_dir() else ())

    @classmethod
    def holding(cls, path: Path, paths: Iterable[str]) -> "Folder":
        """Make a folder with these paths below it."""
        names: dict[str, list[str]] = defaultdict(list)
        for name in paths:
            if not name.startswith("."):
                names[_key(name)].append(name)
        return cls(path, dict(names))

    def find(self, name: str) -> Path:
        """Return the path of the file of this name, whether or not it exists."""
        matches = self.names.get(_key(name), ())
        return self.path / (name if name in matches or not matches else matches[0])

    def differences(self, wanted: Iterable[str], beyond: str) -> tuple[list[str], list[str]]:
        """Return (faults, notes) of the folder compared with the expected names. Missing files are not reported.

        beyond: the note on images that are not expected.
        """
        by_key = {_key(name): name for name in wanted}
        clashes = [self.names[key] for key in by_key if len(self.names.get(key, ())) > 1]
        faults = [f"{self.path} holds {' and '.join(names)}, which are the same name: remove one" for names in clashes]
        other = [
            self.names[key][0] for key, name in by_key.items() if key in self.names and name not in self.names[key]
        ]
        rest = [names[0] for key, names in self.names.items() if key not in by_key and _is_image(key)]
        where = f"{self.path.parent.name}/{self.path.name}"
        notes = {
            f"files in {where} match the list up to Unicode form or case of the suffix": other,
            f"files in {where} {beyond} and are not used": rest,
        }
        return faults, [f"{len(names)} {text} (first: {names[0]})" for text, names in notes.items() if names]


def _key(name: str) -> str:
    stem, suffix = os.path.splitext(composed(name))
    return stem + suffix.lower()


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
