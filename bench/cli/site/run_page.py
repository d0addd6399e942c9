"""The page of a run: scores of each class and split, cost, training, tuning, record, and the command that repeats it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from bench.cli.site.boards import SiteBoard
from bench.cli.site.figures import spec
from bench.cli.site.names import Addresses, board_key
from bench.cli.site.tables import Cell, Column, Table, number, of_frame
from results import charts
from results.class_scores import CLASS_SCORES
from results.cost import Cost
from results.record import column_docs
from results.run_files import SCORES, about_val, history_of, matrix_of, parsed, trials_of
from results.store import Store
from results.tuning_gain import gain_of, gain_text

LAST = 5000  # characters shown of a log


def run_page(store: Store, row: Mapping[Any, Any], boards: Sequence[SiteBoard], at: Addresses) -> dict[str, Any]:
    """Return what the template of a run shows. row: of the table, on the split `test`. boards: those with the run."""
    folder = store.of_row(row).folder_of_row(row)
    broken: list[str] = []
    history = parsed(folder / "history.csv", history_of, broken.append)
    trials = parsed(folder / "trials.jsonl", trials_of, broken.append)
    record = parsed(folder / "record.json", json.loads, broken.append)
    certificate = parsed(folder / "certificate.json", json.loads, broken.append)
    log = parsed(folder / "error.txt", lambda data: data.decode(errors="replace"), broken.append)
    points = [] if history is None else history["val_miou"].dropna().tolist()
    gain = gain_of(row) if row["status"] == "ok" else None
    return {
        "run": row,
        "source": f"../{at.sources[row['source']]}",
        "boards": [(one.title, f"../{at.boards[board_key(one.first)]}") for one in boards],
        "facts": _facts(row),
        "splits": _splits(row, boards),
        "classes": _classes(row),
        "history": None if history is None or history.empty else spec(charts.history_chart(history)),
        "val": (about_val(points, row.get("val_frames")), spec(charts.val_chart(history))) if points else None,  # type: ignore[arg-type]
        "trials": None if trials is None or trials.empty else of_frame("trials", trials),
        "gain": None if gain is None else gain_text(row["trials"], gain.value, gain.standard_error),
        "matrix": yaml.safe_dump(matrix_of(row), sort_keys=False).rstrip().split("\n"),
        "files": [(name, _lines(one)) for name, one in (("Certificate", certificate), ("Record", record)) if one],
        "log": [] if log is None else log[-LAST:].expandtabs().splitlines(),
        "broken": broken,
    }


def _lines(value: Any) -> list[str]:  # noqa: ANN401 - JSON
    return json.dumps(value, indent=1).split("\n")


def _facts(row: Mapping[Any, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value, definition) of what a page begins with; costs that were not measured are left out."""
    docs = column_docs()
    measured = [name for name in (*SCORES, *Cost.model_fields) if pd.notna(row.get(name))]
    facts = [(name, f"{row[name]:,}" if isinstance(row[name], int) else f"{row[name]:.4g}") for name in measured]
    facts += [(name, str(row[name])) for name in ("device", "commit", "weights", "finished") if pd.notna(row.get(name))]
    packages = json.loads(row["packages"]) if isinstance(row.get("packages"), str) else {}
    facts += [("packages", ", ".join(f"{name} {version}" for name, version in packages.items()))] if packages else []
    return [(name, value, docs[name]) for name, value in facts]


def _splits(row: Mapping[Any, Any], boards: Sequence[SiteBoard]) -> Table | None:
    """Return the scores on each test split, if the run has several."""
    found = []
    for one in boards:
        mine = one.runs[(one.runs["run"] == row["run"]) & (one.runs["status"] == "ok")]
        found += [(one.first["test_split"], score["miou"], score["weighted_f"]) for score in mine.to_dict("records")]
    if len(found) < 2:
        return None
    return of_frame("splits", pd.DataFrame(found, columns=["test split", "mIoU", "weighted F"]))


def _classes(row: Mapping[Any, Any]) -> Table | None:
    """Return the scores of each class that the record has."""
    kept = {name: score for name, score in CLASS_SCORES.items() if _is_list(row.get(score.column))}
    if row["status"] != "ok" or not kept:
        return None
    columns = [Column("class", "class")]
    columns += [Column(name, score.title, number=True, about=score.note) for name, score in kept.items()]
    body = [
        [Cell(str(label)), *(number(row[score.column][place]) for score in kept.values())]
        for place, label in enumerate(row["classes"])
    ]
    return Table("classes", columns, body)


def _is_list(value: object) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)
