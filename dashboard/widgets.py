"""Shared widgets: tables and figures with downloads, and escaped text."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.filters import Chosen, family, is_control
from results import charts
from results.escape import cell, cells, for_csv, for_streamlit, for_terminal
from results.marks import board_marks, board_words
from results.record import column_docs
from results.replicate_scores import Samples, samples


def plain(*texts: str) -> str:
    """Escape untrusted texts for Markdown and join them with spaces."""
    return " ".join(map(for_streamlit, texts))


def lines(texts: Iterable[str]) -> None:
    """Draw lines of plain text."""
    st.text("\n".join(map(for_terminal, texts)))


def choice(label: str, options: Sequence[str], key: str, **how: Any) -> str | None:  # noqa: ANN401
    """Draw a select box of untrusted names; its value is part of the URL."""
    chosen: str | None = st.selectbox(label, options, format_func=for_terminal, key=key, bind="query-params", **how)
    return chosen


def shown_json(value: object) -> Any:  # noqa: ANN401
    """Escape all texts in a value for `st.json`."""
    if isinstance(value, Mapping):
        return {for_terminal(str(name)): shown_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shown_json(inner) for inner in value]
    return for_terminal(value) if isinstance(value, str) else value


def table(
    rows: pd.DataFrame,
    name: str,
    columns: Mapping[str, str | None] | None = None,
    download: pd.DataFrame | None = None,
    pinned: Collection[str] = (),
) -> None:
    """Draw a table with a CSV download of `download` (default: `rows`).

    columns: column -> label, None hides it. pinned: columns that stay in sight when a wide table is scrolled.
    """
    docs, exported = column_docs(), rows if download is None else download
    rows = cells(rows, lambda text: for_terminal(cell(text)))  # Streamlit's table has its own CSV download, too
    rows.attrs = {}  # Streamlit writes them as JSON, and findings of leaks are none
    names = {column: column for column in rows.columns} | dict(columns or {})
    config: dict[str, Any] = {
        column: None
        if name is None
        else st.column_config.NumberColumn(name, format="%.4f", help=docs.get(column))
        if pd.api.types.is_float_dtype(rows[column])
        else st.column_config.Column(name, help=docs.get(column), pinned=column in pinned or None)
        for column, name in names.items()
    }
    st.dataframe(rows, hide_index=True, column_config=config, placeholder="–", key=f"table-{name}")
    _download("CSV", name, lambda: for_csv(exported).encode())


def figure(chart: charts.Chart, name: str) -> None:
    """Draw a figure with PNG and SVG downloads."""
    st.altair_chart(chart, key=f"figure-{name}")
    with st.container(horizontal=True):
        for kind in ("png", "svg"):
            _download(kind.upper(), name, partial(charts.as_bytes, chart, kind))


def _download(kind: str, name: str, make: Callable[[], bytes]) -> None:
    """Draw a download button; `make` runs on click."""
    file = f"{name}.{kind.lower()}"
    st.download_button(kind, make, file, key=f"download-{file}", icon=":material/download:", on_click="ignore")


def two_sources(chosen: Chosen) -> tuple[Samples, str, str] | None:
    """Draw two source choices and return (samples of the board, source A, source B); None, with a message, if impossible."""
    data = samples(chosen.whole, chosen.metric, chosen.whole_cells)
    names = sorted(data.scores)
    if len(names) < 2:
        st.info("A comparison needs two sources with complete replicates on this board.")
        return None
    subject = next((i for i, name in enumerate(names) if family(name) != "none" and not is_control(name)), 0)
    other = names.index("none") if "none" in names and names[subject] != "none" else (subject + 1) % len(names)
    left, right = st.columns(2)
    with left:
        a = choice("A", names, "a", index=subject)
    with right:
        b = choice("B", names, "b", index=other)
    if a is None or b is None or a == b:
        st.info("Choose two different sources.")
        return None
    return data, a, b


def board_notes(run: "pd.Series[Any]") -> None:
    """Draw the notes that apply to all scores of a board."""
    st.caption(plain(f"{run['target']}{board_words(run.to_dict())}: {run['label_note']}"))
    for mark in board_marks(run.to_dict()):
        st.warning(plain(mark))


def held_equal(protocol: object, label_note: str) -> None:
    """Draw a popover with the labels, the protocol settings and the definitions of the metrics."""
    docs = column_docs()
    with st.popover("What is compared, and how"):
        lines([f"Labels: {label_note}"])
        for name in ("miou", "weighted_f"):
            lines([f"{name}: {docs[name]}"])
        lines(["Protocol settings, the same for every row:"])
        st.json(shown_json(protocol if isinstance(protocol, dict | list) else [protocol]), expanded=1)
