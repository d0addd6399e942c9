"""One run: scores, training loss, tuning, weights, and the command that repeats it."""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import streamlit as st
import yaml
from pydantic import BaseModel, ConfigDict

from dashboard.filters import Chosen
from dashboard.widgets import choice, figure, lines, plain, shown_json, table
from results import charts
from results.escape import unique, without_paths
from results.limits import MOST
from results.record import column_docs
from results.schedule_names import DEFAULT, TUNED, split_name
from results.tuning_gain import gain_notes, gain_of, gain_text
from safe_io.files import read_regular

T = TypeVar("T")
MOST_BYTES = 2**25  # limit per shown file: a history of a million steps
RISE = 0.005  # between the last two points of a val curve that still rises
SCORES = ("miou", "miou_no_background", "weighted_f", "final_loss", "train_s", "score_s")


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
        if (content := _read(folder / name, lambda data: shown_json(json.loads(data)))) is not None:
            with st.expander(title):
                st.json(content if isinstance(content, dict | list) else [content], expanded=1)
    if (log := _read(folder / "error.txt", lambda data: data.decode(errors="replace"))) is not None:
        lines(without_paths(line.expandtabs(), chosen.contents.store.root) for line in log[-5000:].splitlines())


def _read(path: Path, of: Callable[[bytes], T]) -> T | None:
    """Parse a file of a run with `of`; None if it is missing, or invalid, with a warning."""
    try:
        return of(read_regular(path, MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):  # untrusted input
        pass
    st.warning(plain(f"{path.name} cannot be read"))
    return None


def history_of(data: bytes) -> pd.DataFrame:
    """Parse a history.csv; return step, loss and val_miou, NaN where it has no point. Older files have no points.

    Raises:
        ValueError: the file is invalid.
    """
    names = ["step", "loss", "val_miou"]
    history = pd.read_csv(io.BytesIO(data), usecols=lambda name: name in names)
    if missing := {"step", "loss"} - set(history):
        raise ValueError(f"no column {min(missing)}")
    history = history.reindex(columns=names, fill_value=np.nan)
    numbers = all(kind.kind in "if" for kind in history.dtypes)
    if not numbers or not (np.abs(history[["step", "loss"]]) < MOST).all(axis=None):
        raise ValueError("steps and losses must be finite numbers")
    if not history["val_miou"].dropna().between(0, 1).all():
        raise ValueError("val_miou must be between 0 and 1")
    return history


def _history(folder: Path, val_frames: float | None) -> None:
    """Draw the training loss, and the val curve if there is one. val_frames: from the record."""
    history = _read(folder / "history.csv", history_of)
    if history is None or history.empty:
        return
    st.subheader("Training loss")
    figure(charts.history_chart(history), "history")
    points = history["val_miou"].dropna().tolist()
    if points:
        st.subheader("Validation during training")
        st.caption(about_val(points, val_frames))
        figure(charts.val_chart(history), "val")


def about_val(points: Sequence[float], val_frames: float | None) -> str:
    """Return a sentence on the val curve: what it is of, and whether it still rises. points: (P,) mIoU in order."""
    frames = "some frames" if val_frames is None or pd.isna(val_frames) else f"{val_frames:.0f} frames"
    rises = len(points) > 1 and points[-1] == max(points) and points[-1] - points[-2] > RISE
    now = "still rising at the last point" if rises else "not rising any more at the last point"
    return f"On val, {frames}, not used for any choice: {now}."


class Trial(BaseModel):
    """A line of trials.jsonl."""

    model_config = ConfigDict(allow_inf_nan=False)
    schedule: dict[str, float | str]
    val_miou: float | None = None
    val_mious: list[float | None] | None = None


def trials_of(data: bytes) -> pd.DataFrame:
    """Return one row per trial: trial, settings of the schedule, val_miou, and the val_mious of its trainings if it has several.

    A truncated last line is skipped.

    Raises:
        ValueError: a line is not a trial, or a setting has both numbers and strings.
    """
    *whole, last = data.split(b"\n")
    trials = [Trial.model_validate_json(line) for line in whole]
    with contextlib.suppress(ValueError):
        trials.append(Trial.model_validate_json(last))
    frame = pd.DataFrame([one.schedule for one in trials])
    if mixed := [name for name in frame if frame[name].map(type).nunique() > 1]:
        raise ValueError(f"{mixed[0]} is a number in some trials and a string in others")
    frame = frame.set_axis(unique(frame.columns, ("trial", "val_miou", "val_mious")), axis="columns")
    scores = pd.Series([one.val_miou for one in trials], dtype="float64")
    frame = frame.assign(val_miou=scores)
    if any(one.val_mious is not None for one in trials):
        frame = frame.assign(val_mious=[", ".join(map(_score, one.val_mious or ())) for one in trials])
    return frame.rename_axis("trial").reset_index()


def _score(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4f}"


def _trials(folder: Path, row: dict[str, Any]) -> None:
    frame = _read(folder / "trials.jsonl", trials_of)
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


def importance(trials: pd.DataFrame, least: int = 10) -> pd.Series | None:
    """Return the importance of each setting for the validation mIoU (PED-ANOVA of Optuna); None for fewer than `least` trials."""
    trials = trials.drop(columns="val_mious", errors="ignore").dropna()
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
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()  # the other evaluators need scikit-learn
    return pd.Series(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _command(chosen: Chosen, row: dict[str, Any]) -> None:
    st.subheader("Run it again")
    matrix = {name: row[name] for name in ("target", "protocol")}
    protocol, trials = split_name(str(row["protocol"]))
    matrix |= {"protocol": protocol} | ({} if trials is None else {"trials": trials})
    matrix |= {"sources": [row["source"]], "backbones": [row["backbone"]], "train_fracs": [float(row["train_frac"])]}
    matrix |= {} if row["schedule_kind"] == TUNED else {"schedules": [row["schedule_kind"]]}
    st.code(f"# one.yaml\n{yaml.safe_dump(matrix, sort_keys=False)}", language="yaml")
    st.code("bench run --matrix one.yaml --data DIR", language="sh")
    packages = json.loads(row["packages"]) if isinstance(row.get("packages"), str) else {}
    if packages:
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        st.caption(plain(f"{row['device']}, commit {row['commit']}, {versions}"))
