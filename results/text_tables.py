"""Tables as aligned text, Markdown or LaTeX, with every cell escaped."""

import functools
from collections.abc import Callable, Sequence

from tabulate import DataRow, Line, TableFormat, tabulate

from results.escape import for_latex, for_markdown, for_terminal

CLEAN: dict[str, Callable[[str], str]] = {"table": for_terminal, "md": for_markdown, "latex": for_latex}
_tabulate = functools.partial(tabulate, disable_numparse=True, preserve_whitespace=True)


def _tabular(widths: Sequence[int], _: object) -> str:
    return f"\\begin{{tabular}}{{{'l' * len(widths)}}}\n\\hline"


_MARKDOWN, _LATEX = DataRow("| ", " | ", " |"), DataRow("", " & ", r" \\")
_RULE, _END = (Line(text, "", "", "") for text in (r"\hline", "\\hline\n\\end{tabular}"))
_UNPADDED = {  # tabulate's own formats would escape again and pad long cells
    "md": TableFormat(None, lambda widths, _: f"|{'---|' * len(widths)}", None, None, _MARKDOWN, _MARKDOWN, 0, None),
    "latex": TableFormat(_tabular, _RULE, None, _END, _LATEX, _LATEX, 0, None),
}


def page(
    head: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], form: str
) -> str:
    """Format a table with lines above and below; in LaTeX they are comments, so that the result can be \\input."""
    head, notes = ([CLEAN[form](line) for line in lines] for lines in (head, notes))
    if form == "latex":
        head, notes = ([f"% {line}" for line in lines] for lines in (head, notes))
    if form == "md":  # otherwise they would form one paragraph
        notes = [f"- {line}" for line in notes]
    gap = [] if form == "latex" else [""]
    return "\n".join([*head, *gap, grid(columns, rows, form), *(gap if notes else []), *notes])


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]], form: str) -> str:
    """Format a table."""
    columns, *rows = ([CLEAN[form](cell) for cell in row] for row in [columns, *rows])
    if form in _UNPADDED:
        return _tabulate(rows, columns, _UNPADDED[form], stralign=None)
    # header as a row: tabulate would widen columns for headers
    head, *lines = _tabulate([columns, *rows], tablefmt="plain").split("\n")
    return "\n".join([head, "-" * min(len(head) + 8, 160), *lines])
