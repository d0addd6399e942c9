"""One run: scores, training loss, tuning, weights, and the command that repeats it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
import yaml

from dashboard.filters import Chosen
from dashboard.widgets import choice, figure, lines, plain, shown_json, table
from results import charts
from results.escape import without_paths
from results.record import column_docs
from results.run_files import SCORES, about_val, history_of, importance, matrix_of, parsed, trials_of
from results.schedule_names import DEFAULT
from results.tuning_gain import gain_notes, gain_of, gain_text


def show(chosen: Chosen) -> None:
    """Draw the page."""
    st.title("One run")
    if chosen.runs.empty:
        st.info("No runs match these filters.")
        return
    rows = chosen.runs.sort_values(["source", "backbone", "replicate", "finished"])
    names = [f"{r.source} × {r.backbone} · r{r.replicate} · {str(r.run)[:6]}" for r in rows.itertuples()]
    name = choice("Run", names, "run") or names[0]
    row = {str(column): value for column, value in rows.iloc[names.index(name)].items()}
    folder = chosen.contents.store.of_row(row).folder_of_row(row)
    if pd.notna(row["badge"]):
        st.warning(plain(f"Submitted in {row['submission']}, not measured here: {row['badge']}."))
    if row["status"] != "ok":
        st.warning(plain(f"{row['status']}: {row['reason']}"))
    for column, name in zip(st.columns(len(SCORES)), SCORES, strict=True):
        value = row.get(name)
        column.metric(name, "–" if pd.isna(value) else f"{value:.4g}", help=column_docs()[name])
    _history(folder, row.get("val_frames"))
    _trials(folder, row)
    _command(chosen, row)
    for title, name in (("Certificate of the weights", "certificate.json"), ("Record", "record.json")):
        if (content := parsed(folder / name, lambda data: shown_json(json.loads(data)), _warn)) is not None:
            with st.expander(title):
                st.json(content if isinstance(content, dict | list) else [content], expanded=1)
    if (log := parsed(folder / "error.txt", lambda data: data.decode(errors="replace"), _warn)) is not None:
        lines(without_paths(line.expandtabs(), chosen.contents.store.root) for line in log[-5000:].splitlines())


def _warn(text: str) -> None:
    st.warning(plain(text))


def _history(folder: Path, val_frames: float | None) -> None:
    """Draw the training loss, and the val curve if there is one. val_frames: from the record."""
    history = parsed(folder / "history.csv", history_of, _warn)
    if history is None or history.empty:
        return
    st.subheader("Training loss")
    figure(charts.history_chart(history), "history")
    points = history["val_miou"].dropna().tolist()
    if points:
        st.subheader("Validation during training")
        st.caption(about_val(points, val_frames))
        figure(charts.val_chart(history), "val")


def _trials(folder: Path, row: dict[str, Any]) -> None:
    frame = parsed(folder / "trials.jsonl", trials_of, _warn)
    if row["schedule_kind"] == DEFAULT:
        st.subheader("Tuning")
        st.caption("None: this run has the protocol's default schedule.")
    if frame is None or frame.empty:
        return
    st.subheader("Tuning")
    st.caption("Validation mIoU is used to choose the schedule and is not a result. Trial 0 is the default schedule.")
    if pd.notna(row["trials"]):
        gain = gain_of(row)
        st.markdown(f"Gain of tuning: **{plain(gain_text(row['trials'], gain.value, gain.standard_error))}**")
        notes = gain_notes([row | {"trainings": gain.trainings}])
        st.caption(plain(*(f"{note}." for note in notes)))
    table(frame, "trials")
    try:
        shares = importance(frame)
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        st.caption("The importance of each setting needs Optuna: pip install 'satir-bench[train]'")
        return
    if shares is not None:
        figure(charts.importance_chart(shares), "importance")


def _command(chosen: Chosen, row: dict[str, Any]) -> None:
    st.subheader("Run it again")
    st.code(f"# one.yaml\n{yaml.safe_dump(matrix_of(row), sort_keys=False)}", language="yaml")
    st.code("bench run --matrix one.yaml --data DIR", language="sh")
    packages = json.loads(row["packages"]) if isinstance(row.get("packages"), str) else {}
    if packages:
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        st.caption(plain(f"{row['device']}, commit {row['commit']}, {versions}"))
