"""Marks shown beside a source or a board, shared by table, report and dashboard."""

from collections.abc import Mapping
from typing import Any

from results.record import TEST
from results.schedule_names import DEFAULT

TRANSFERS = {
    "frozen": "FROZEN ENCODER: only decoder and head were trained on the target.",
    "linear": "LINEAR PROBE: the encoder is frozen; a 1 x 1 convolution on its feature maps was trained on the target.",
}


ORACLE = "oracle: "  # beginning of the leak of a source that is made from people's annotations of the pool


def is_oracle(leak: object) -> bool:
    """Return whether a leak is that of an oracle: it is never ranked, but has seen no test image, so it may be compared."""
    return isinstance(leak, str) and leak.startswith(ORACLE)


def leak_mark(leak: str) -> str:
    """Return the word for a leak, which is never ranked."""
    return "oracle" if is_oracle(leak) else "LEAK"


def leak_note(source: str, leak: str) -> str:
    """Return why a source with a leak is not ranked."""
    return f"{leak_mark(leak)}, never ranked: {source}: {leak.removeprefix(ORACLE)}"


def marks(cell: Mapping[Any, Any]) -> list[str]:
    """Return the marks of a row of `results.board.board`: leak, share of seen test images (verified or declared), badge."""
    names = ("leak", "touched", "says_touched", "badge")
    leak, touched, declared, badge = (None if value != value else value for value in (cell[name] for name in names))
    shown = [] if leak is None else [leak_mark(leak)]
    shown += [f"has seen {touched:.0%} of the test"] if touched else []
    shown += [f"declares {declared:.0%} of the test seen"] if declared else []
    return shown + ([] if badge is None else [f"submitted, {badge}"])


def board_marks(run: Mapping[Any, Any]) -> list[str]:
    """Return what holds for all scores of a board and must stand beside them. run: any of its runs or cells."""
    shown = [TRANSFERS[run["transfer"]]] if run["transfer"] in TRANSFERS else []
    shown += [] if run["ranked"] else ["TOO SHORT TO RANK ANYTHING: this protocol only shows that everything runs."]
    if run["selected_on_test"]:
        shown.append("SELECTED ON TEST: this protocol selects on the test split, so its scores are optimistic.")
    return shown


def split_words(split: object) -> str:
    """Return what to add to the name of a board of a further test split; nothing for `test`."""
    return "" if split == TEST else f", test split {split}"


def schedule_words(kind: object) -> str:
    """Return what to add to the name of a board of runs with the default schedule; nothing for tuned ones."""
    return ", default schedule" if kind == DEFAULT else ""


def board_words(run: Mapping[Any, Any]) -> str:
    """Return what to add to the target and protocol in the name of a board. run: any of its runs or cells."""
    return split_words(run["test_split"]) + schedule_words(run["schedule_kind"])
