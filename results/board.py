"""The leaderboard: one row per cell, ranked among comparable cells."""

import functools
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from results import known_leaks, metrics, stats
from results.clean_ranks import Ranks
from results.evidence_files import EvidenceKey
from results.record import TEST
from results.store import Store, StoreError
from results.tuning_gain import Gain, gain_of

# only cells with the same values are compared
BOARD = ["target", "protocol", "target_hash", "protocol_hash", "result_version", "schedule_kind"]
CELL_NAMES = ["source", "backbone", "train_frac"]
Run = Mapping[Hashable, Any]  # a row of the table

_SAME = [*BOARD, *CELL_NAMES, "cell"]  # the same for all runs of a cell
_ALSO_SAME = ["ranked", "selected_on_test", "transfer", "label_note", "weights", "leak", "badge", "test_split"]
_TUNING = {  # board column: run column
    "val_miou_tuned": "tuned_val_miou",
    "val_miou_default": "default_val_miou",
    "trials": "trials",
    "schedule": "schedule",
}
_HELD_OUT = (
    *("heldout_miou", "heldout_miou_constant"),
    *("heldout_loss_before", "heldout_loss", "heldout_loss_constant"),
)
_OF_A_RUN = ("miou", "weighted_f", "status", "reason", "replicates", "finished", "train_s", "score_s", "gpu")
_USED = [*_SAME, *_ALSO_SAME, *_HELD_OUT, *_TUNING.values(), "training_val_mious", *_OF_A_RUN]
_BOARD_COLUMNS = [
    *("rank", "target", "protocol", *CELL_NAMES, "n", "replicates", "miou", "miou_low", "miou_high", "interval_note"),
    *("weighted_f", "weighted_f_low", "weighted_f_high", "val_miou_tuned", "val_miou_default"),
    *("tuning_gain", "tuning_gain_se", "trials", "trainings", "schedule"),
    *_HELD_OUT,
    *("run_s", "status", "reason", "ranked", "selected_on_test"),
    *("transfer", "label_note"),
    *("weights", "leak", "touched", "says_touched", "badge", "cell", *BOARD[2:], "finished", "test_split"),
]
# text columns, even where every value is missing
_NUMBER_OR_MISSING = ("val_miou_tuned", "val_miou_default", "tuning_gain", "tuning_gain_se")
_TEXT_OR_MISSING = ("interval_note", "reason", "weights", "schedule", "leak", "badge")


def board(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell, ranked by mean mIoU within each board and train fraction.

    Only complete cells are ranked: every replicate is present and ok. A mean over the surviving replicates would favour
    sources that often diverge. If a cell has several identities, the newest with results counts and the others are `stale`.
    """
    by_cell: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs[_USED].to_dict("records"):  # faster than slicing the frame for each cell
        by_cell[tuple(run[name] for name in _SAME)].append(run)
    rows = [_cell_row(cell_runs) for cell_runs in by_cell.values()]
    types = dict.fromkeys(_TEXT_OR_MISSING, "str") | dict.fromkeys(_NUMBER_OR_MISSING, "float64")
    cells = pd.DataFrame(rows, columns=_BOARD_COLUMNS).astype(types)
    cells = _mark_stale(cells)
    touched = runs.attrs.get("known_leaks", known_leaks.KnownLeaks())
    for name, share in (("touched", touched.share), ("says_touched", touched.said_share)):
        shares = [share(*key) for key in zip(cells["target_hash"], cells["source"], strict=True)]
        cells[name] = pd.Series(shares, index=cells.index, dtype="float64")
    cells["rank"] = _ranks(cells, runs, touched)
    order = [*BOARD, "train_frac", "miou", "source", "backbone"]
    return cells.sort_values(
        order, ascending=[name not in ("train_frac", "miou") for name in order], na_position="last", ignore_index=True
    )


def _ranks(cells: pd.DataFrame, runs: pd.DataFrame, leaks: known_leaks.KnownLeaks) -> "pd.Series[int]":
    """Return the rank of each cell; one that has seen images of `test` is ranked on the others."""
    seen = cells["touched"] > 0
    elsewhere = seen & ((cells["test_split"] != TEST) | ("root" not in runs.attrs))  # only `test` is searched for leaks
    clean = cells["leak"].isna() & ~elsewhere & ~(cells["says_touched"] > 0)
    rankable = cells[cells["ranked"].astype(bool) & (cells["status"] == "ok") & clean]
    groups = rankable.groupby([*BOARD, "train_frac"])
    if not seen[rankable.index].any():
        return groups["miou"].rank(ascending=False, method="min").reindex(cells.index).astype("Int64")
    ranks = Ranks(runs, leaks)
    return pd.concat([ranks.of(rows) for _, rows in groups]).reindex(cells.index)


def constant_note(runs: pd.DataFrame) -> str | None:
    """Describe the score of the best constant prediction; None if no evidence can be read."""
    for place in np.flatnonzero(runs["status"] == "ok"):
        row = runs.iloc[place].to_dict()
        try:
            best, value = _constant(EvidenceKey.of_row(Store(runs.attrs["root"]), row))
        except StoreError:
            continue
        return f"Predicting '{row['classes'][best]}' everywhere scores {value:.4f} mIoU."
    return None


@functools.lru_cache(maxsize=64)
def _constant(key: EvidenceKey) -> tuple[int, float]:
    return metrics.constant(key.read().confusion.sum((0, 2)))


def _cell_row(runs: Sequence[Run]) -> dict[str, Any]:
    ok = [run for run in runs if run["status"] == "ok"]
    row = {name: runs[0][name] for name in (*_SAME, *_ALSO_SAME)}
    row |= {"badge": next((run["badge"] for run in runs if pd.notna(run["badge"])), None)}
    row |= {"n": len(ok)} | {name: max(run[name] for run in runs) for name in ("replicates", "finished")}
    for metric in ("miou", "weighted_f"):
        values = [float(run[metric]) for run in ok]
        interval = stats.t_interval(values)
        row |= {
            metric: stats.mean(values) if values else None,
            f"{metric}_low": interval.low,
            f"{metric}_high": interval.high,
        }
        row |= {"interval_note": interval.why_not} if metric == "miou" else {}
    for name in _HELD_OUT:
        values = [float(run[name]) for run in ok if pd.notna(run[name])]
        row |= {name: stats.mean(values) if values else None}
    row |= {"run_s": stats.mean([run["train_s"] + run["score_s"] for run in ok]) if ok else None}
    row |= {name: ok[0][column] if ok else None for name, column in _TUNING.items()}
    gain = gain_of(ok[0]) if ok else Gain(None, None, 0)
    row |= {"tuning_gain": gain.value, "tuning_gain_se": gain.standard_error, "trainings": gain.trainings}
    return row | _cell_status(runs, row["n"], row["replicates"])


def _cell_status(runs: Sequence[Run], n: int, wanted: int) -> dict[str, str | None]:
    others = [run for run in runs if run["status"] != "ok"]
    if n and others:
        counted = Counter(run["status"] for run in others).most_common()
        counts = ", ".join(f"{count} {status}" for status, count in counted)
        return {"status": "partial", "reason": f"{counts} of {wanted}: {others[0]['reason']}"}
    if others:
        return {"status": others[0]["status"], "reason": others[0]["reason"]}
    if n < wanted:
        return {"status": "incomplete", "reason": f"{n} of {wanted} replicates so far"}
    return {"status": "ok", "reason": _mixed(runs)}


def _mixed(runs: Sequence[Run]) -> str | None:
    """Describe replicates from both kinds of processor; None if all are from one."""
    on_gpu = sum(bool(pd.notna(run["gpu"])) for run in runs)
    if on_gpu in (0, len(runs)):
        return None
    return f"{on_gpu} of {len(runs)} replicates ran on a GPU, the others on a CPU; their numbers are equal up to rounding only"


def _mark_stale(cells: pd.DataFrame) -> pd.DataFrame:
    """Mark cells replaced by a newer identity of the same name. A cell without results never replaces one with results."""
    by_age = cells.assign(measured=cells["n"] > 0).sort_values(["measured", "finished"], kind="stable")
    current = by_age.groupby([*BOARD, *CELL_NAMES])["cell"].transform("last")
    old = by_age.index[by_age["cell"] != current]
    cells.loc[old, "status"] = "stale"
    cells.loc[old, "reason"] = "outdated: its inputs have changed, and a newer identity of this cell is on the board"
    return cells
