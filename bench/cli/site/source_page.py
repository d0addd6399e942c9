"""The page of a source: its cells on every board, the other sources against it, its runs and its card."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.cli.site.board_page import SAID, against_table, runs_table
from bench.cli.site.boards import SiteBoard
from bench.cli.site.names import Addresses, board_key
from bench.cli.site.tables import DASH, Cell, Column, Table, number, of_frame, span, without_empty
from bench.cli.tables import plain_rows, source_text
from results.escape import without_paths
from results.marks import marks
from results.record import TEST
from results.record_files import record_of_row
from results.source_notes import STATED, source_notes
from results.store import Store


def source_page(store: Store, source: str, boards: Sequence[SiteBoard], at: Addresses) -> dict[str, Any]:
    """Return what the template of a source shows. boards: all of the store."""
    own = [one for one in boards if source in set(one.cells["source"])]
    on_test = [one for one in own if one.first["test_split"] == TEST]
    runs = pd.concat([one.runs[one.runs["source"] == source] for one in on_test])
    return {
        "source": source,
        "marks": _marks(source, own),
        "cells": _cells(source, own, at, store.root),
        "against": [
            (one.title, against_table(one.rankings[0], source, f"against-{place}", at))
            for place, one in enumerate(own)
            if one.rankings and any(one.rankings[0].against(source))
        ],
        "stated": STATED,
        "notes": of_frame("stated", source_notes(runs).drop(columns="source").rename(columns=SAID)),
        "runs": runs_table(runs, at),
        "card": _card(store, runs),
    }


def _marks(source: str, own: Sequence[SiteBoard]) -> list[str]:
    rows = (row for one in own for row in one.cells[one.cells["source"] == source].to_dict("records"))
    return list(dict.fromkeys(mark for row in rows for mark in marks(row)))


def _cells(source: str, own: Sequence[SiteBoard], at: Addresses, root: Path) -> Table:
    columns = [Column("board", "board"), Column("backbone", "backbone"), Column("source", "source", shown=False)]
    columns += [Column("rank", "rank", number=True), Column("miou", "mIoU", number=True)]
    columns += [Column("miou_95", "95 %", number=True), Column("weighted_f", "weighted F", number=True)]
    columns += [Column("n", "replicates", number=True), Column("status", "status"), Column("why", "why")]
    body = [
        [
            Cell(one.title, link=f"../{at.boards[board_key(one.first)]}"),
            Cell(row["backbone"]),
            Cell(source_text(row)),
            number(row["rank"], "{:.0f}"),
            number(row["miou"]),
            span(row, "miou"),
            number(row["weighted_f"]),
            Cell(f"{row['n']} of {row['replicates']}", float(row["n"])),
            Cell(row["status"]),
            Cell(without_paths(row["leak"] or row["reason"] or DASH, root)),
        ]
        for one in own
        for row in plain_rows(one.cells[one.cells["source"] == source])
    ]
    return without_empty(Table("cells", columns, body), ("rank", "miou"))


def _card(store: Store, runs: pd.DataFrame) -> list[str]:
    """Return the lines of the card that the newest run was made from."""
    newest = runs.sort_values("finished").iloc[-1]
    record = record_of_row(store, newest.to_dict())
    card = None if record is None else record.settings.get("card")
    return [] if card is None else json.dumps(card, indent=1).split("\n")
