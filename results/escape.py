"""Escape untrusted text for each output format. All output goes through this module.

Records, bundles, cards, verdicts, leak findings, file names and error messages are untrusted. Their text must not move the cursor,
start a new line, become markup or a formula, or make a viewer load a file or URL.
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

LONGEST = 1000  # characters shown of one text


def visible(text: str) -> str:
    """Return the text on one line, with unprintable characters as Python escapes: `\\x1b`, `\\n`, `\\u202e`.

    Unprintable: control characters, line separators, bidirectional controls, other invisible characters, and lone surrogates
    (from `os.fsdecode` of a file name that is not UTF-8).
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def for_terminal(text: str) -> str:
    """Escape a text for a terminal, log, label or figure: one line, shortened if very long."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}... ({len(text):,} characters) ...{text[-(LONGEST // 2) :]}"
    return visible(text)


def lines_for_terminal(text: str) -> str:
    """Escape a multi-line message, such as a list of faults; lines after the first are indented."""
    return "\n  ".join(map(for_terminal, text.split("\n")))


_ABOVE = re.compile(r"(?<![\w.:/~-])/(?:[^\s/:\"'<>|]+/)+")  # an absolute path up to its last part


def without_paths(text: str, root: Path) -> str:
    """Remove local paths from a message for a public page: keep paths relative to the store, shorten all others."""
    above = {str(path) for one in (root, root.absolute()) for path in (one, one.parent)} - {".", "/"}
    for folder in sorted(above, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./~-]){re.escape(folder)}/", "", text)
    return _ABOVE.sub(".../", text)


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {c: f"{{{c}}}" for c in "[]*"}  # at the start of a row they would be read as options of the preceding \\
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


def for_latex(text: str) -> str:
    """Escape a text for LaTeX; also safe in a comment."""
    return for_terminal(text).translate(_LATEX)


_MARKDOWN = (
    (re.compile(r"&(?=[#\w])"), "&amp;"),
    (re.compile(r"<(?=[A-Za-z/!?])"), "&lt;"),
    (re.compile(r"([\\`*\[\]|$]|(?<![^\W_])_|_(?![^\W_]))"), r"\\\1"),
    (re.compile(r"^( +)"), lambda spaces: "&nbsp;" * len(spaces[1])),  # four spaces would start a code block
    (re.compile(r"^(#{1,6}(?=\s|$)|>|[+-](?=\s)|[=-]{2,}\s*$)"), r"\\\1"),  # heading, quotation, list, rule
    (re.compile(r"^(\d+)([.)])(?=\s)"), r"\1\\\2"),
)


def for_markdown(text: str) -> str:
    """Escape a text for Markdown, including GitHub's. Plain names and numbers stay unchanged."""
    text = for_terminal(text)
    for pattern, put in _MARKDOWN:
        text = pattern.sub(put, text)
    struck = text.count("~") > 1  # two mark strikethrough or a code fence
    return text.replace("~", r"\~") if struck else text


_STREAMLIT = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:^&@])")
_AFTER_PARSING = re.compile(r":(?=material[/_]|streamlit:|//)|(?<=www)\.|@(?=[-\w]+\.[-\w])")


def for_streamlit(text: str) -> str:
    """Escape a text for Streamlit's Markdown.

    Streamlit looks for icons, and GitHub's Markdown for URLs, after parsing, when backslashes are already gone. One character of
    each such pattern is therefore shown as code, where neither looks.
    """
    parts, begin, shown = [], 0, for_terminal(text)
    for match in _AFTER_PARSING.finditer(shown):
        parts += [_STREAMLIT.sub(r"\\\1", shown[begin : match.start()]), f"`{match[0]}`"]
        begin = match.end()
    return "".join([*parts, _STREAMLIT.sub(r"\\\1", shown[begin:])])


def for_html(text: str) -> str:
    """Escape a text for HTML, between tags or in a quoted attribute."""
    return html.escape(for_terminal(text))


def for_json(value: object) -> str:
    """Serialise a value as ASCII JSON, without loss and without control characters."""
    return ascii_json(json.dumps(value, indent=1, allow_nan=False))


def ascii_json(text: str) -> str:
    """Escape DEL, the one control character that ASCII JSON may contain."""
    return text.replace("\x7f", "\\u007f")


FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def cell(text: str) -> str:
    """Escape a text for a table cell, so that no spreadsheet reads it as a formula; it is never shortened."""
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
    """Apply `of` to all strings and column names of a frame. Numbers and lists stay unchanged."""

    def shown(value: Any) -> Any:  # noqa: ANN401
        return of(value) if isinstance(value, str) else value

    made = frame.set_axis(unique(map(shown, frame.columns)), axis="columns")
    for place, kind in enumerate(frame.dtypes):
        if kind.kind == "O":  # object and string columns
            made.isetitem(place, frame.iloc[:, place].map(shown).array)
    return made


def unique(names: Iterable[Any], taken: Iterable[str] = ()) -> list[str]:
    """Make column names unique by numbering repeated ones."""
    seen, made = set(taken), []
    for name in names:
        new = next(t for n in itertools.count(1) if (t := name if n == 1 else f"{name} ({n})") not in seen)
        seen.add(new)
        made.append(new)
    return made


def for_csv(frame: "pd.DataFrame") -> str:
    """Serialise a frame as CSV, with all digits."""
    return str(cells(frame).to_csv(index=False))
