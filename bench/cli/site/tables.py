"""Tables of the site: their cells have a text to show and a value to sort by."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from bench.cli.questions import cell_text

DASH = "-"


class Cell(NamedTuple):
    """A cell. value: a number to sort by, None if it is missing; not used in columns of text. link: address of a page."""

    text: str
    value: float | None = None
    link: str | None = None


class Column(NamedTuple):
    """A column. key: its name in links. number: sorted by value. shown: whether the page shows it at first."""

    key: str
    title: str
    number: bool = False
    shown: bool = True
    about: str = ""


@dataclass(frozen=True)
class Table:
    """A table. name: of its state in links, unique on a page."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def number(value: Any, form: str = "{:z.4f}") -> Cell:  # noqa: ANN401 - of a data frame
    """Return a cell with a number that may be missing. A score that rounding left below zero is 0."""
    if value is None or pd.isna(value):
        return Cell(DASH)
    return Cell(form.format(value), float(value))


def span(row: Mapping[Any, Any], of: str, form: str = "{:.4f}..{:.4f}") -> Cell:
    """Return a cell with an interval, sorted by its lower end. of: what the columns with its ends begin with."""
    low, high = row[f"{of}_low"], row[f"{of}_high"]
    return Cell(DASH) if low is None or pd.isna(low) else Cell(form.format(low, high), float(low))


def text(value: Any, link: str | None = None) -> Cell:  # noqa: ANN401 - of a data frame
    """Return a cell with a text that may be missing."""
    return Cell(cell_text(value), link=link)


def of_frame(name: str, rows: pd.DataFrame, links: Mapping[str, Mapping[str, str]] | None = None) -> Table:
    """Return a table of a data frame: numbers as numbers. links: column -> value -> address."""
    kinds = [pd.api.types.is_numeric_dtype(kind) for kind in rows.dtypes]
    columns = [
        Column(f"c{place}", str(title), kind) for place, (title, kind) in enumerate(zip(rows, kinds, strict=True))
    ]
    whole = [pd.api.types.is_integer_dtype(kind) for kind in rows.dtypes]
    forms = ["{:.0f}" if one else "{:.4f}" for one in whole]
    by_column = [(links or {}).get(str(title), {}) for title in rows]
    body = [
        [
            number(value, form) if kind else text(value, known.get(str(value)))
            for value, kind, form, known in zip(row, kinds, forms, by_column, strict=True)
        ]
        for row in rows.itertuples(index=False, name=None)
    ]
    return Table(name, columns, body)


def without_empty(table: Table, keep: Iterable[str] = ()) -> Table:
    """Return the table without columns in which every cell is missing. keep: keys of columns that stay."""
    kept = set(keep)
    places = [
        place
        for place, column in enumerate(table.columns)
        if column.key in kept or any(row[place].text not in (DASH, "") for row in table.rows)
    ]
    return Table(table.name, [table.columns[p] for p in places], [[row[p] for p in places] for row in table.rows])
