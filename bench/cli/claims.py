"""Text of `bench claim`. Loads no torch."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import pandas as pd

from bench.cli.questions import Filters, board_of, span
from pretrain_sources.config_file import read_yaml_list
from results.board_choice import UnanswerableError
from results.claims import Expected, Judgement, judge, judge_entry, parse, sentence
from results.compare import p_text
from results.escape import for_terminal
from results.record import TEST
from results.replicate_scores import samples
from results.store import Store
from results.table import runs_frame
from results.text_tables import page

COLUMNS = ("claim", "verdict", "difference", "95 %", "p")
HOW = "verdict, and p of no difference: among all pairs of the board (Holm); 95 %: interval of the pair alone"


def claim_text(store: Store, text: str, **filters: Unpack[Filters]) -> tuple[str, Judgement]:
    """Judge a claim; return (text, judgement)."""
    claim = parse(text)
    judgement = judge(claim, samples(board_of(store, **filters), claim.metric))
    return for_terminal(f"{sentence(judgement)}. {judgement.found.note}"), judgement


def claims_text(store: Store, path: Path, form: str = "text") -> tuple[str, bool]:
    """Judge each entry of a claims file; return (text, whether all are as expected). form: text, or md for a Markdown table."""
    table = runs_frame(store)
    judged = [(entry, *_judged(entry, table)) for entry in read_yaml_list(path, Expected)]
    if not judged:
        raise UnanswerableError(f"{path} contains no claims")
    several = len({entry.target for entry, found, _ in judged if found}) > 1
    notes = list(dict.fromkeys(_note(found, entry.target if several else None) for entry, found, _ in judged if found))
    if form == "md":
        text = _table(judged, [HOW, *notes])
    else:
        lines = [_lines(*one) for one in judged]
        text = "\n".join([*lines, "", *map(for_terminal, notes)]).strip("\n")
    return text, all(_expected(entry, found) for entry, found, _ in judged)


def _judged(entry: Expected, table: pd.DataFrame) -> tuple[Judgement | None, str]:
    """Return the judgement and its sentence, or (None, why there is none)."""
    try:
        found = judge_entry(entry, table)
    except UnanswerableError as error:
        return None, str(error)
    return found, sentence(found)


def _note(found: Judgement, target: str | None) -> str:
    """Return what is to be known of the intervals, and of which target, if named, and which test split, if not `test`."""
    split = "" if found.test_split == TEST else found.test_split
    where = ", ".join(filter(None, (target, split)))
    return f"On {where}: {found.found.note}" if where else found.found.note


def _expected(entry: Expected, found: Judgement | None) -> bool:
    return found is not None and found.verdict.lower() == entry.expect


def _lines(entry: Expected, found: Judgement | None, text: str) -> str:
    mark = "not judged" if found is None else "as expected" if _expected(entry, found) else "NOT AS EXPECTED"
    parts = (f"{mark} ({entry.expect}): {entry.claim}", entry.says, text)
    return "\n  ".join(for_terminal(part) for part in parts if part)


def _table(judged: Sequence[tuple[Expected, Judgement | None, str]], notes: list[str]) -> str:
    """Tabulate the claims, each question above its claims. What cannot be judged has one note per reason."""
    rows: list[Sequence[str]] = []
    reasons = Counter[str]()
    for entry, found, text in judged:
        if entry.about:
            rows.append((entry.about, "", "", "", ""))
        says = entry.says or entry.claim
        if found is None:
            rows.append((says, f"not judged (expected: {entry.expect})", "", "", ""))
            reasons[text] += 1
            continue
        verdict = found.verdict if _expected(entry, found) else f"{found.verdict} (expected: {entry.expect})"
        difference = found.found.judged
        interval = span(difference.low, difference.high)
        rows.append((says, verdict, f"{difference.effect:+.4f}", interval, p_text(found.p_adjusted)))
        if found.why:
            notes.append(f"{entry.claim}: {found.why}")
    notes += [f"Not judged ({count}): {reason}" for reason, count in reasons.items()]
    return page([], COLUMNS, rows, notes, "md").strip("\n")
