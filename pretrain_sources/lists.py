"""Lists of files, as people and their programs write them, and the folders that they are held against.

A byte-order mark, CRLF, blank lines and spaces around a field do no harm. Names are the same where they are in Unicode's composed
form (NFC), for a copy from one system to another may write them otherwise; so are suffixes of other case. What then does not match,
or matches twice, is reported and never guessed.
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
    """A list cannot be used; the message names the file and the line."""


def composed(name: str) -> str:
    """A name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def plain(name: str) -> str:
    """A path in a list as it is compared: composed, with forward slashes, without ./ and without the suffix of an image."""
    name = composed(name.strip()).replace("\\", "/").removeprefix("./")
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def stem_of(name: str) -> str:
    """The name of a file in a list as it is written there, without its folder and without the suffix of an image."""
    stem, suffix = os.path.splitext(name.replace("\\", "/").rsplit("/", 1)[-1])
    return stem if suffix.lower() in SUFFIXES else stem + suffix


def two_forms(names: Iterable[str]) -> list[str]:
    """Faults: names that stand in a list in two Unicode forms."""
    forms = Counter(map(composed, set(names)))
    return [f"'{name}' stands there in two Unicode forms" for name, count in forms.items() if count > 1]


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, tuple[str, ...]]]:
    """(line, values of these columns) of each row of a CSV file with a header.

    Raises:
        ListError: it cannot be read, a column is missing, or a row has too few or too many fields.
    """
    try:
        with io.TextIOWrapper(open_regular(path), newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            return [(reader.line_num, _fields(row, columns, f"{path}, line {reader.line_num}")) for row in reader]
    except KeyError as error:
        raise ListError(f"{path} has no column {error}: it must have {','.join(columns)}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ListError(f"cannot read {path}: {error}") from error


def _fields(row: Mapping[str | None, object], columns: Sequence[str], where: str) -> tuple[str, ...]:
    beyond = row.get(None) or []
    if isinstance(beyond, list) and any(field.strip() for field in beyond):
        raise ListError(f"{where}: too many fields; a name with a comma must stand in quotes")
    values = tuple(str(row[column] or "").strip() for column in columns)
    if not all(values):
        raise ListError(f"{where}: too few fields")
    return values


@dataclass(frozen=True)
class Folder:
    """The files of one folder by name. Hidden files, such as the ._ files of macOS, are none of them."""

    path: Path
    names: Mapping[str, Sequence[str]]  # name as it is compared, with its suffix -> names on the disk

    @classmethod
    def of(cls, path: Path) -> "Folder":
        """The folder as it is now; one that is not there holds nothing."""
        return cls.holding(path, sorted(os.listdir(path)) if path.is_dir() else ())

    @classmethod
    def holding(cls, path: Path, paths: Iterable[str]) -> "Folder":
        """The folder with these paths below it."""
        names: dict[str, list[str]] = defaultdict(list)
        for name in paths:
            if not name.startswith("."):
                names[_key(name)].append(name)
        return cls(path, dict(names))

    def find(self, name: str) -> Path:
        """Where the file of this name lies; where it is not there, where it should."""
        found = self.names.get(_key(name), ())
        return self.path / (name if name in found or not found else found[0])

    def differences(self, wanted: Iterable[str], beyond: str) -> tuple[list[str], list[str]]:
        """(faults, notes) of a folder held against the names that are wanted of it; missing files are neither.

        beyond: what to say of images that are not wanted.
        """
        by_key = {_key(name): name for name in wanted}
        clashes = [self.names[key] for key in by_key if len(self.names.get(key, ())) > 1]
        faults = [f"{self.path} holds {' and '.join(names)} for one name: take one away" for names in clashes]
        other = [
            self.names[key][0] for key, name in by_key.items() if key in self.names and name not in self.names[key]
        ]
        rest = [names[0] for key, names in self.names.items() if key not in by_key and _is_image(key)]
        where = f"{self.path.parent.name}/{self.path.name}"
        notes = {
            f"files in {where} are matched although list and folder write their names otherwise (Unicode form, "
            f"case of the suffix)": other,
            f"files in {where} {beyond} and are not used": rest,
        }
        return faults, [f"{len(names)} {text} (first: {names[0]})" for text, names in notes.items() if names]


def _key(name: str) -> str:
    stem, suffix = os.path.splitext(composed(name))
    return stem + suffix.lower()


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
