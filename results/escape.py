"""Text of strangers, made ready for each form of output. Every output goes through here.

What a record, a bundle, a card, a verdict, a finding of leaks, a file name or an error message says is text. It must not move a
cursor, begin a line, become markup or a formula, or name a file or an address that is then loaded.
"""

import html
import itertools
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 1000  # characters of one text that are shown


def visible(text: str) -> str:
    """The text on one line; a character that cannot be seen is written as in Python: `\\x1b`, `\\n`, `\\u202e`.

    These are control characters, line separators, marks that turn the direction of reading, other invisible marks, and lone
    surrogates (what `os.fsdecode` makes of a file name that is not UTF-8).
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def for_terminal(text: str) -> str:
    """The text on one line, cut where it is very long: for a terminal, a log, a label, a figure."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}... ({len(text):,} characters) ...{text[-(LONGEST // 2) :]}"
    return visible(text)


def lines_for_terminal(text: str) -> str:
    """A text whose line ends are meant, such as a message that lists faults; what follows the first line is indented."""
    return "\n  ".join(map(for_terminal, text.split("\n")))


_ABOVE = re.compile(r"(?<![\w.:/~-])/(?:[^\s/:\"'<>|]+/)+")  # of an absolute path, all but its last part


def without_paths(text: str, root: Path) -> str:
    """A message for a page that others see: files are named from this store on, or by their last part alone."""
    above = {str(path) for one in (root, root.absolute()) for path in (one, one.parent)} - {".", "/"}
    for folder in sorted(above, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./~-]){re.escape(folder)}/", "", text)
    return _ABOVE.sub(".../", text)


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {c: f"{{{c}}}" for c in "[]*"}  # at the beginning of a row they would be options of the \\ before
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


def for_latex(text: str) -> str:
    """LaTeX that sets the text as it is; in a comment it does no harm either."""
    return for_terminal(text).translate(_LATEX)


_MARKDOWN = (
    (re.compile(r"&(?=[#\w])"), "&amp;"),
    (re.compile(r"<(?=[A-Za-z/!?])"), "&lt;"),
    (re.compile(r"([\\`*\[\]|$]|(?<![^\W_])_|_(?![^\W_]))"), r"\\\1"),
    (re.compile(r"^( +)"), lambda spaces: "&nbsp;" * len(spaces[1])),  # four would make a block of code
    (re.compile(r"^(#{1,6}(?=\s|$)|>|[+-](?=\s)|[=-]{2,}\s*$)"), r"\\\1"),  # a heading, a quotation, a list, a rule
    (re.compile(r"^(\d+)([.)])(?=\s)"), r"\1\\\2"),
)


def for_markdown(text: str) -> str:
    """Markdown, also of GitHub, that shows the text as it is. A plain name or number stays the same letter by letter."""
    text = for_terminal(text)
    for pattern, put in _MARKDOWN:
        text = pattern.sub(put, text)
    struck = text.count("~") > 1  # two strike out what is between them, or begin a fence
    return text.replace("~", r"\~") if struck else text


_STREAMLIT = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:^&@])")
_AFTER_PARSING = re.compile(r":(?=material[/_]|streamlit:|//)|(?<=www)\.|@(?=[-\w]+\.[-\w])")


def for_streamlit(text: str) -> str:
    """Markdown of Streamlit that shows the text as it is.

    Streamlit looks for icons, and Markdown of GitHub for addresses, in the text that is left after parsing, where a backslash
    is gone. A character that each of them needs is shown as code: they do not look into that.
    """
    parts, begin, shown = [], 0, for_terminal(text)
    for found in _AFTER_PARSING.finditer(shown):
        parts += [_STREAMLIT.sub(r"\\\1", shown[begin : found.start()]), f"`{found[0]}`"]
        begin = found.end()
    return "".join([*parts, _STREAMLIT.sub(r"\\\1", shown[begin:])])


def for_html(text: str) -> str:
    """The text in HTML, between tags or in a quoted attribute."""
    return html.escape(for_terminal(text))


def for_json(value: object) -> str:
    """JSON of the value, exact and in ASCII alone: what cannot be seen is written out."""
    return ascii_json(json.dumps(value, indent=1, allow_nan=False))


def ascii_json(text: str) -> str:
    """JSON without the one invisible character that writers of ASCII leave as it is."""
    return text.replace("\x7f", "\\u007f")


FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def cell(text: str) -> str:
    """The text of a cell, which no spreadsheet takes for a formula; it is not cut."""
    if not text.lstrip(" ").startswith(FORMULA) or _is_number(text):
        return visible(text)
    return f"'{visible(text)}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def cells(frame: "pd.DataFrame", of: Callable[[str], str] = cell) -> "pd.DataFrame":
    """The frame with all text in it, and the names of its columns, as `of` makes them. Numbers and lists stay as they are."""

    def shown(value: Any) -> Any:  # noqa: ANN401
        return of(value) if isinstance(value, str) else value

    made = frame.set_axis(unique(map(shown, frame.columns)), axis="columns")
    for place, kind in enumerate(frame.dtypes):
        if kind.kind == "O":  # objects and text
            made.isetitem(place, frame.iloc[:, place].map(shown).array)
    return made


def unique(names: Iterable[Any], taken: Iterable[str] = ()) -> list[str]:
    """The names, with a number behind each that is there already: columns of one table must differ."""
    seen, made = set(taken), []
    for name in names:
        told = next(t for n in itertools.count(1) if (t := name if n == 1 else f"{name} ({n})") not in seen)
        seen.add(told)
        made.append(told)
    return made


def for_csv(frame: "pd.DataFrame") -> str:
    """The frame as CSV with all digits."""
    return str(cells(frame).to_csv(index=False))
