"""What tuning changed on the test images: each cell with the tuned schedule against the same with the default one."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from results import stats
from results.board import BOARD, CELL_NAMES, board
from results.replicate_scores import Samples, samples
from results.schedule_names import DEFAULT, TUNED
from results.stats import Difference
from results.tiers import TIER_ALPHA
from results.uncertainty import all_pairs

TUNED_NOTE = (
    "tuned - default: mean test mIoU with the tuned schedule minus that with the default one; Welch's 95 % interval"
)
SAME_SCHEDULE = "trial 0 won, so both are the same trainings"
PLACE = [name for name in BOARD if name != "schedule_kind"]  # the same for both schedules
_COLUMNS = {"tuned_minus_default": "effect", "tuned_minus_default_low": "low", "tuned_minus_default_high": "high"}
_Cells = dict[
    tuple[Hashable, ...], tuple[tuple[float, ...], str]
]  # (R,) mIoU and the schedule, by PLACE and CELL_NAMES


def with_tuned(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Add how the mean mIoU with the tuned schedule differs: tuned_minus_default, its Welch interval, and tuned_note.

    cells: a board of runs with the default schedule. runs: with both schedules. A cell that is incomplete with either has no
    difference.
    """
    tuned, default = (_complete(runs[runs["schedule_kind"] == kind]) for kind in (TUNED, DEFAULT))
    rows = []
    for key in cells[[*PLACE, *CELL_NAMES]].itertuples(index=False, name=None):
        one = _difference(tuned[key], default[key]) if key in tuned and key in default else None
        row: dict[str, Any] = {name: getattr(one, field, None) for name, field in _COLUMNS.items()}
        rows.append(row | {"tuned_note": one.why_not if one else None})
    added = pd.DataFrame(rows, columns=[*_COLUMNS, "tuned_note"], index=cells.index)
    return cells.join(added.astype(dict.fromkeys(_COLUMNS, "float64") | {"tuned_note": "str"}))


def _complete(runs: pd.DataFrame) -> _Cells:
    """Return the scores and the schedule of each complete cell."""
    if runs.empty:
        return {}
    cells = board(runs)
    scores = runs[runs["status"] == "ok"].groupby("cell")["miou"].agg(tuple)
    return {
        tuple(cell[name] for name in (*PLACE, *CELL_NAMES)): (scores[cell["cell"]], cell["schedule"])
        for cell in cells[cells["status"] == "ok"].to_dict("records")
    }


def _difference(tuned: tuple[tuple[float, ...], str], default: tuple[tuple[float, ...], str]) -> Difference:
    """Compare the replicates. With one schedule they are the same trainings, so there is nothing to estimate."""
    if tuned[1] == default[1]:
        return Difference(stats.mean(tuned[0]) - stats.mean(default[0]), why_not=SAME_SCHEDULE)
    return stats.difference([(tuned[0], default[0])])


def difference_text(cell: Mapping[Any, Any]) -> str:
    """Format how the mean with the tuned schedule differs, with its interval. cell: a row of `with_tuned`."""
    effect, low, high = (cell[name] for name in _COLUMNS)
    if pd.isna(effect):
        return "-"
    if cell["tuned_note"] == SAME_SCHEDULE:
        return f"{effect:+.4f} (trial 0 won)" if effect else "0 (trial 0 won)"
    return f"{effect:+.4f}" + ("" if pd.isna(low) else f" ({low:+.4f}..{high:+.4f})")


def conclusions_note(run: Mapping[Any, Any], runs: pd.DataFrame) -> str | None:
    """Say which pairs of sources are established with one schedule alone; None if no pair can be tested with both.

    run: any run or cell of the board and share of the labels in question. runs: with both schedules. Only cells that are complete
    with both count.
    """
    place = [*PLACE, "train_frac"]
    rows = runs[(runs[place] == [run[name] for name in place]).all(axis=1)]
    parts = [rows[rows["schedule_kind"] == kind] for kind in (TUNED, DEFAULT)]
    common = _complete(parts[0]).keys() & _complete(parts[1]).keys()
    keys = rows[[*PLACE, *CELL_NAMES]].itertuples(index=False, name=None)
    kept = pd.Series([key in common for key in keys], index=rows.index, dtype=bool)
    parts = [part[kept.reindex(part.index)] for part in parts]
    if any(part["source"].nunique() < 2 for part in parts):
        return None
    (tuned, tested), (default, _) = (_established(samples(part)) for part in parts)
    if not tested:
        return None
    alone = [
        f"{', '.join(f'{a} > {b}' for a, b in sorted(pairs))} only with the {kind} schedule"
        for kind, pairs in ((TUNED, tuned - default), (DEFAULT, default - tuned))
        if pairs
    ]
    said = "; ".join(alone) or f"the same {len(tuned)} of {tested} pairs with either schedule"
    return f"established better (mIoU, Holm-adjusted p < {100 * TIER_ALPHA:g} %): {said}"


def other_note(run: Mapping[Any, Any], runs: pd.DataFrame) -> str | None:
    """Say that the sources of a board with the tuned schedule were also run with the default one; None if they were not."""
    same = (runs[PLACE] == [run[name] for name in PLACE]).all(axis=1) & (runs["schedule_kind"] == DEFAULT)
    return "the default schedule was also run: --schedule default" if same.any() else None


def _established(data: Samples) -> tuple[set[tuple[str, str]], int]:
    """Return (pairs (better, worse) of sources, number of tested pairs)."""
    tested = [(key, one, p) for key, (one, p) in all_pairs(data).items() if p is not None and data.judged]
    return {key if one.judged.effect > 0 else key[::-1] for key, one, p in tested if p < TIER_ALPHA}, len(tested)
