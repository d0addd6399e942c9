import pytest

from results.text_tables import grid, page

COLUMNS, ROWS = ("source", "mIoU"), (("none", "0.5"), ("satir/n-10_a", "-"))
TEXT = """source        mIoU
--------------------------
none          0.5
satir/n-10_a  -"""
MARKDOWN = """| source | mIoU |
|---|---|
| none | 0.5 |
| satir/n-10_a | - |"""
LATEX = r"""\begin{tabular}{ll}
\hline
source & mIoU \\
\hline
none & 0.5 \\
satir/n-10\_a & - \\
\hline
\end{tabular}"""


@pytest.mark.parametrize(("form", "text"), [("table", TEXT), ("md", MARKDOWN), ("latex", LATEX)])
def test_table_in_each_format(form: str, text: str) -> None:
    assert grid(COLUMNS, ROWS, form) == text


@pytest.mark.parametrize("form", ["table", "md", "latex"])
def test_table_without_rows_has_a_header(form: str) -> None:
    assert "source" in grid(COLUMNS, (), form)


def test_header_does_not_widen_column_and_spaces_stay() -> None:
    assert grid(("mIoU", "n"), [("  0.5000000", "1,000")], "table").split("\n")[2] == "  0.5000000  1,000"


def test_numbers_are_not_reformatted() -> None:
    assert grid(("p", "n"), [("1.0", "007"), ("0.25", "True")], "table").split("\n")[2:] == ["1.0   007", "0.25  True"]


def test_lines_around_a_table_are_comments_in_latex() -> None:
    assert page(["50 %"], COLUMNS, ROWS, ["a note"], "latex") == f"% 50 \\%\n{LATEX}\n% a note"
    assert page(["50 %"], COLUMNS, ROWS, ["a note"], "md") == f"50 %\n\n{MARKDOWN}\n\n- a note"
