"""`bench status` of a store or of one cell; works from any machine that sees the files. Loads no torch."""

import fnmatch
import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench import BenchError
from bench.plan.saved_plans import INPUTS, NAMES, read_plan
from bench.plan.unit import KINDS, Json
from bench.plan.unit_folder import CLAIM, LOG, OUTCOME, PROGRESS, is_left
from pretrain_sources.config_file import suggestion
from results.escape import for_terminal
from results.record import RunRecord
from results.record_files import read_records
from results.scores import MOST
from results.store import Store

LINES = 8  # of a log to show
SHOWN = {"loss": "loss", "val_miou": "val mIoU of the last trial"}


def store_status(store: Store) -> Json:
    """Counts of run statuses per cell, and the units at work, as JSON values.

    Raises:
        StoreError: there is no store.
    """
    from results.table import own_runs  # pandas is slow to import

    frame = own_runs(store)
    by_cell: dict[str, list[Mapping[Hashable, Any]]] = defaultdict(list)
    for run in frame[[*NAMES, "replicates", "cell", "status", "reason"]].to_dict("records"):
        by_cell[run["cell"]].append(run)
    cells = []
    for cell, runs in by_cell.items():
        counts = Counter(run["status"] for run in runs)
        reasons = list(dict.fromkeys(f"{run['status']}: {run['reason']}" for run in runs if run["status"] != "ok"))
        names = {name: runs[0][name] for name in (*NAMES, "replicates")}
        cells.append(names | {"cell": cell, "runs": dict(counts), "reasons": reasons})
    cells.sort(key=lambda row: [row[name] for name in NAMES])
    at_work = [row for kind in KINDS for row in _unfinished(store, kind)]
    return {"cells": cells, "at_work": at_work, "unreadable": frame.attrs["unreadable"]}


def cell_status(store: Store, name: str) -> list[Json]:
    """The units, their states and the changed inputs of every cell that matches `SOURCE x BACKBONE` or SOURCE (globs).

    Raises:
        BenchError: no plan of this store has such a cell.
    """
    plans = [read_plan(path) for path in sorted(store.root.glob("plans/*.json.gz"))]
    planned = {cell["cell"]: (cell, plan["units"]) for plan in plans for cell in plan["cells"]}
    titles = {cell: _title(row["expected"]) for cell, (row, _) in planned.items()}
    wanted = [c for c, t in titles.items() if any(fnmatch.fnmatchcase(x, name) for x in (t, t.split(" x ")[0]))]
    if not wanted:
        known = suggestion(name, titles.values()) if titles else ": it has no plan of any `bench run`"
        raise BenchError(f"no plan in {store.root} has a cell '{name}'{known}")
    records, _ = read_records(store)
    return [_cell(store, *planned[cell], records) for cell in wanted]


def _cell(store: Store, row: Json, units: Json, records: Sequence[RunRecord]) -> Json:
    by_run = {record.run: record for record in records}
    order: dict[str, None] = {}
    for run in row["runs"]:
        _add_needs(run, units, order)
    expected = row["expected"]
    others = [r for r in records if r.cell != row["cell"] and all(getattr(r, n) == expected[n] for n in NAMES)]
    done = any(by_run[run].status == "ok" for run in row["runs"] if run in by_run)
    newest = max(others, key=lambda record: record.finished, default=None)
    changed = [] if done or newest is None else _changes(newest.model_dump(mode="json"), expected)
    return {
        "cell": row["cell"],
        **{name: expected[name] for name in NAMES},
        "units": [_unit(store, run, units[run], by_run.get(run)) for run in order],
        "changed": changed,
    }


def _add_needs(run: str, units: Json, order: dict[str, None]) -> None:
    for need in units[run]["needs"]:
        _add_needs(need, units, order)
    order.setdefault(run)


def _unit(store: Store, fingerprint: str, unit: Json, record: RunRecord | None) -> Json:
    """State of a unit: done, a failed status, running, interrupted or to do; with the end of its log if it failed."""
    kind = unit["kind"]
    folder = store.unit_dir(kind, fingerprint)
    row: Json = {"kind": kind, "unit": unit["unit"], "fingerprint": fingerprint}
    if record is not None:
        row |= {"state": "done" if record.status == "ok" else record.status, "reason": record.reason}
        logs = [store.folder_of(record) / "error.txt", folder / LOG]
    elif kind != "final" and is_left(store, kind, fingerprint):
        row |= {"state": "done", "reason": None}
        logs = []
    else:
        logs = [folder / LOG]
        row |= {"state": "to do", "reason": None}
    failed = _json(folder / OUTCOME)
    if row["state"] == "to do" and failed:
        row |= {"state": failed.get("status"), "reason": failed.get("reason")}
    if (facts := _work_facts(folder)) and row["state"] not in ("done",):
        row |= facts
    if row["state"] not in ("done", "to do", "running"):
        log = next((path for path in logs if path.is_file() and path.stat().st_size), None)
        text = log.read_text(errors="replace").splitlines()[-LINES:] if log else []
        row |= {"log": str(log) if log else None, "last_lines": text}
    return row


def _unfinished(store: Store, kind: str) -> Iterable[Json]:
    """The units of a kind that are running, or whose process died."""
    for path in sorted((store.root / "units" / kind).glob(f"*/{PROGRESS}")):
        if (facts := _work_facts(path.parent)) is not None:
            yield facts | {"kind": kind, "fingerprint": path.parent.name}


def _work_facts(folder: Path) -> Json | None:
    """Progress of a unit, or None if it has not begun or is done."""
    facts = _json(folder / PROGRESS)
    numbers = [facts.get(name, 0.0) for name in SHOWN] + [facts.get("done"), facts.get("total")]
    if not all(isinstance(number, int | float) and abs(number) < MOST for number in numbers):  # truncated, or not ours
        return None
    try:
        with FileLock(folder / CLAIM, timeout=0, fallback_to_soft=False):
            state = "interrupted"
    except Timeout:
        state = "running"
    except OSError:  # a read-only store
        state = "begun"
    return facts | {"state": state}


def _changes(old: Json, new: Json) -> list[str]:
    """Inputs that differ from those of a record, by name and value."""
    before, after = (_flat({name: values[name] for name in INPUTS}) for values in (old, new))
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    changes = [f"{name}: {_short(before.get(name))} -> {_short(after.get(name))}" for name in names]
    return changes or ["the pool, the teacher's checkpoint or the corpus"]


def _flat(value: Any, name: str = "") -> Json:  # noqa: ANN401
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{name}.{key}".lstrip(".")).items()}
    return {name.removeprefix("settings."): value}


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"


def _title(fields: Json) -> str:
    share = "" if fields["train_frac"] == 1 else f" at {fields['train_frac']:g}"
    return f"{fields['source']} x {fields['backbone']}{share}"


def _json(path: Path) -> Json:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# -- as text -----------------------------------------------------------------------------------------------------------


def store_text(status: Json) -> str:
    """Text of `bench status`."""
    names = Counter(tuple(row[name] for name in NAMES) for row in status["cells"])
    lines, reasons = [], []
    for row in status["cells"]:
        title = _title(row)
        title += (
            f" [{row['cell'][:6]}]" if names[tuple(row[name] for name in NAMES)] > 1 else ""
        )  # its inputs have changed
        counts = ", ".join(f"{count} {status}" for status, count in row["runs"].items())
        lines.append(f"{row['target']}  {row['protocol']}  {title:44} {counts} of {row['replicates']}")
        reasons += [f"{title}: {reason}" for reason in row["reasons"]]
    lines += ["", *dict.fromkeys(reasons)] if reasons else []
    lines += ["", *map(_progress, status["at_work"])] if status["at_work"] else []
    lines += [f"unreadable, the next run repeats it: {text}" for text in status["unreadable"]]
    return "\n".join(map(for_terminal, lines or ["no runs yet"]))


def cell_text(cells: Sequence[Json]) -> str:
    """Text of `bench status CELL`."""
    lines = []
    for cell in cells:
        lines.append(f"{_title(cell)}, {cell['target']}, {cell['protocol']} [{cell['cell'][:6]}]")
        lines += [f"  not done: this input changed since the stored results: {text}" for text in cell["changed"]]
        for unit in cell["units"]:
            lines.append(f"  {_progress(unit)}" if "done" in unit else f"  {unit['state']:11} {unit['unit']}")
            lines += [f"    {unit['reason']}"] if unit["reason"] else []
            lines += [f"    {unit['log']} ends:"] if unit.get("log") else []
            lines += [f"    | {text.expandtabs()}" for text in unit.get("last_lines", ())]
    return "\n".join(map(for_terminal, lines))


def _progress(row: Json) -> str:
    facts = "".join(f", {label} {row[name]:.3f}" for name, label in SHOWN.items() if name in row)
    share = row["done"] / max(1, row["total"])
    return f"{row['state']:11} {row.get('unit')}, {share:.0%}{facts}, since {row.get('since')}"
