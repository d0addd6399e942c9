"""One run: how it went, how its schedule was chosen, what its weights were, and the command that repeats it."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
import yaml
from pydantic import BaseModel, ConfigDict

from dashboard.filters import Chosen
from dashboard.parts import figure, plain, table
from results import pictures
from safe_files import MOST_TEXT_BYTES, read_regular
from results.record import column_docs
from results.store import read_json_lines

SCORES = ("miou", "miou_no_background", "weighted_f", "final_loss", "train_s", "score_s")


def show(chosen: Chosen) -> None:
    """The page."""
    st.title("One run")
    if chosen.runs.empty:
        st.info("No run is left by these filters.")
        return
    rows = chosen.runs.sort_values(["source", "backbone", "replicate", "finished"])
    names = [f"{r.source} × {r.backbone} · r{r.replicate} · {str(r.run)[:6]}" for r in rows.itertuples()]
    name = st.selectbox("Run", names, key="run", bind="query-params")
    row = {str(column): value for column, value in rows.iloc[names.index(name)].items()}
    folder = chosen.found.store.of_row(row).folder_of_row(row)
    if pd.notna(row["badge"]):
        st.warning(plain(f"Submitted in {row['submission']}, not measured here: {row['badge']}."))
    if row["status"] != "ok":
        st.warning(plain(f"{row['status']}: {row['reason']}"))
    for column, name in zip(st.columns(len(SCORES)), SCORES, strict=True):
        value = row.get(name)
        column.metric(name, "–" if pd.isna(value) else f"{value:.4g}", help=column_docs()[name])
    _history(folder)
    _trials(folder, row)
    _again(chosen, row)
    for title, name in (("Certificate of the weights", "certificate.json"), ("Record", "record.json")):
        if (told := _text(folder / name)) is not None:
            with st.expander(title):
                _json(told)
    if (told := _text(folder / "error.txt")) is not None:
        st.text(told[-5000:])


def _text(path: Path) -> str | None:
    """The text of a file, or None where there is none that can be read: a run may have come in a bundle."""
    try:
        return read_regular(path, MOST_TEXT_BYTES).decode(errors="replace")
    except OSError:
        return None


def _json(text: str) -> None:
    try:
        st.json(json.loads(text), expanded=1)
    except (ValueError, RecursionError):
        st.text(text[:5000])


def _history(folder: Path) -> None:
    told = _text(folder / "history.csv")
    try:
        history = pd.read_csv(io.StringIO(told or ""))[["step", "loss"]].apply(pd.to_numeric, errors="coerce")
    except (ValueError, KeyError):
        return
    st.subheader("Training loss")
    figure(pictures.history_chart(history), "history")


class _Trial(BaseModel):
    """A line of trials.jsonl, as far as it is shown."""

    model_config = ConfigDict(allow_inf_nan=False)
    schedule: dict[str, float | str]
    val_miou: float | None = None


def _trials(folder: Path, row: dict[str, Any]) -> None:
    try:
        told = [_Trial.model_validate(line) for line in read_json_lines(folder / "trials.jsonl")]
        trials = [{**trial.schedule, "val_miou": trial.val_miou} for trial in told]
        frame = pd.DataFrame(trials).rename_axis("trial").reset_index()
    except (OSError, ValueError):
        return
    if frame.empty:
        return
    st.subheader("Tuning")
    st.caption("Validation mIoU chooses the schedule and is no result. Trial 0 is the default.")
    table(frame, "trials")
    if (shares := importance(frame)) is not None:
        figure(pictures.importance_chart(shares), "importance")


def importance(trials: pd.DataFrame, least: int = 10) -> pd.Series | None:
    """Share of each setting in the variation of the validation mIoU (PED-ANOVA, by Optuna); None for fewer than `least` trials."""
    trials = trials.dropna()
    if len(trials) < least or trials["val_miou"].nunique() < 2:
        return None
    import optuna

    study = optuna.create_study(direction="maximize")
    space: dict[str, optuna.distributions.BaseDistribution] = {}
    for name in trials.columns.difference(["trial", "val_miou"]):
        values = trials[name]
        if values.nunique() > 1:
            number = pd.api.types.is_numeric_dtype(values)
            space[name] = (
                optuna.distributions.FloatDistribution(float(values.min()), float(values.max()))
                if number
                else optuna.distributions.CategoricalDistribution(sorted(values.unique(), key=str))
            )
    for row in trials.to_dict("records"):
        params = {name: row[name] for name in space}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=row["val_miou"]))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()  # the other ones need scikit-learn
    return pd.Series(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _again(chosen: Chosen, row: dict[str, Any]) -> None:
    st.subheader("Run it again")
    matrix = {name: row[name] for name in ("target", "protocol")}
    matrix |= {"sources": [row["source"]], "backbones": [row["backbone"]], "train_fracs": [float(row["train_frac"])]}
    st.code(f"# one.yaml\n{yaml.safe_dump(matrix, sort_keys=False)}", language="yaml")
    st.code("bench run --matrix one.yaml --data DIR", language="sh")
    packages = json.loads(row["packages"]) if isinstance(row.get("packages"), str) else {}
    if packages:
        told = ", ".join(f"{name} {version}" for name, version in packages.items())
        st.caption(plain(f"{row['device']}, commit {row['commit']}, {told}"))
