"""Pieces that several pages draw: tables and figures with their downloads, and text that stays text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.filters import Chosen, family, is_control
from results import charts
from results.escape import cell, cells, for_csv, for_streamlit, for_terminal
from results.record import column_docs
from results.replicate_scores import Samples, samples


def plain(*texts: str) -> str:
    """Markdown that shows texts of cards and records as they are, one after the other."""
    return " ".join(map(for_streamlit, texts))


def lines(texts: Iterable[str]) -> None:
    """Draws lines of plain text."""
    st.text("\n".join(map(for_terminal, texts)))


def choice(label: str, options: Sequence[str], key: str, **how: Any) -> str | None:  # noqa: ANN401
    """A box to choose from names of strangers; its value lives in the address."""
    found: str | None = st.selectbox(label, options, format_func=for_terminal, key=key, bind="query-params", **how)
    return found


def shown_json(value: object) -> Any:  # noqa: ANN401
    """The value with all text in it as it may be shown, for `st.json`."""
    if isinstance(value, Mapping):
        return {for_terminal(str(name)): shown_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shown_json(inner) for inner in value]
    return for_terminal(value) if isinstance(value, str) else value


def table(
    rows: pd.DataFrame, name: str, columns: Mapping[str, str | None] | None = None, download: pd.DataFrame | None = None
) -> None:
    """A table and its CSV with all digits; `download` where that holds more than is shown. columns: other names, None hides."""
    docs, held = column_docs(), rows if download is None else download
    rows = cells(rows, lambda text: for_terminal(cell(text)))  # a table has a download of its own, too
    names = {column: column for column in rows.columns} | dict(columns or {})
    config: dict[str, Any] = {
        column: None
        if name is None
        else st.column_config.NumberColumn(name, format="%.4f", help=docs.get(column))
        if pd.api.types.is_float_dtype(rows[column])
        else st.column_config.Column(name, help=docs.get(column))
        for column, name in names.items()
    }
    st.dataframe(rows, hide_index=True, column_config=config, placeholder="–", key=f"table-{name}")
    _download("CSV", name, lambda: for_csv(held).encode())


def figure(chart: charts.Chart, name: str) -> None:
    """A figure, and the same as PNG and SVG."""
    st.altair_chart(chart, key=f"figure-{name}")
    with st.container(horizontal=True):
        for kind in ("png", "svg"):
            _download(kind.upper(), name, partial(charts.as_bytes, chart, kind))


def _download(kind: str, name: str, make: Callable[[], bytes]) -> None:
    """Made when it is asked for."""
    file = f"{name}.{kind.lower()}"
    st.download_button(kind, make, file, key=f"download-{file}", icon=":material/download:", on_click="ignore")


def two_sources(chosen: Chosen) -> tuple[Samples, str, str] | None:
    """(what can be compared on this board, source A, source B), or None where there is nothing to compare; it says so."""
    found = samples(chosen.whole, chosen.metric, chosen.whole_cells)
    names = sorted(found.scores)
    if len(names) < 2:
        st.info("It takes two sources on one board whose replicates are all there.")
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
    return found, a, b


def board_notes(run: "pd.Series[Any]") -> None:
    """What must stand wherever a number of this board does."""
    st.caption(plain(f"{run['target']}: {run['label_note']}"))
    if not run["ranked"]:
        st.warning("Too short to rank anything: this protocol only shows that every part works.")
    if run["selected_on_test"]:
        st.warning("Selected on test, like its peers: this protocol looks at the test split before it is scored.")


def held_equal(protocol: object, label_note: str) -> None:
    """One hover away: the labels, what is held equal, and how the numbers are defined."""
    docs = column_docs()
    with st.popover("What is compared, and how"):
        lines([f"Labels: {label_note}"])
        for name in ("miou", "weighted_f"):
            lines([f"{name}: {docs[name]}"])
        lines(["Held equal for every row, by the protocol:"])
        st.json(shown_json(protocol if isinstance(protocol, dict | list) else [protocol]), expanded=1)
