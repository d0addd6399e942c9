"""Write the site of a store: all pages into a folder beside the old one, which takes its place when it is whole."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import BenchError
from bench.cli.site.board_page import board_page, ranking_parts
from bench.cli.site.boards import SiteBoard, boards_of
from bench.cli.site.figures import vega
from bench.cli.site.names import Addresses, board_key, pages, run_key
from bench.cli.site.render import Renderer
from bench.cli.site.run_page import run_page
from bench.cli.site.source_page import source_page
from bench.cli.site.tables import Cell, Column, Table
from results.board import BOARD
from results.escape import for_csv
from results.scores import Scores
from results.store import Store, cannot_write
from results.table import runs_frame
from safe_io.files import aside_of, clear_leftovers_of

OURS = '<meta name="generator" content="satir-bench report">'  # a line of index.html
ASSETS = ("site.css", "site.js", "vega-licences.txt")
_FILE = re.compile(
    r"index\.html|runs\.csv|(boards|sources|runs)/[^/]+\.html|assets/(vega\.js|"
    + "|".join(map(re.escape, ASSETS))
    + ")"
)


def write_site(store: Store, out: Path) -> Path:
    """Write the site of a store into the folder `out`; return the path of its first page.

    An older site there is replaced when the new one is whole.

    Raises:
        BenchError: `out` is a file, or a folder with other files.
        StoreError: there is no store, or the folder cannot be written.
    """
    store.require()
    there = out.resolve()
    _require_free(out, there)
    runs = runs_frame(store)
    boards = boards_of(runs)
    at = _addresses(runs, boards)
    try:
        with _replacing(there) as folder:
            _write_all(folder, store, runs, boards, at)
    except OSError as error:
        raise cannot_write(out, error) from error
    return out / "index.html"


def _require_free(out: Path, there: Path) -> None:
    """Refuse a path that may not be replaced: anything but an empty folder or a site, which holds nothing else."""
    above = next(path for path in (there, *there.parents) if path.exists())
    if not above.is_dir():
        raise BenchError(f"--out {out}: {above} is a file: name a folder that is new, empty or holds an older site")
    if above != there:
        return
    files = sorted(
        path.relative_to(there).as_posix() for path in there.rglob("*") if not path.is_dir() or path.is_symlink()
    )
    foreign = [name for name in files if not _FILE.fullmatch(name)]
    index = there / "index.html"
    if files and not foreign and not (index.is_file() and OURS in index.read_text(errors="replace")[:2000]):
        foreign = files
    if foreign:
        raise BenchError(
            f"--out {out} holds {foreign[0]}, which is not of a site: name a folder that is new, empty or holds an older site"
        )


@contextmanager
def _replacing(there: Path) -> Iterator[Path]:
    """Yield a new folder; on success it becomes `there`, on failure it is deleted and `there` stays as it was."""
    there.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers_of(there)
    folder, old = aside_of(there), aside_of(there)
    try:
        folder.mkdir()
        yield folder
        if there.exists():
            there.rename(old)
        try:
            folder.rename(there)
        except OSError:
            with contextlib.suppress(OSError):
                old.rename(there)
            raise
    finally:
        for left in (folder, old):
            shutil.rmtree(left, ignore_errors=True)


def _addresses(runs: pd.DataFrame, boards: list[SiteBoard]) -> Addresses:
    names = {board_key(one.first): one.title.replace(", ", "--") for one in boards}
    keys = {run_key(row): str(row["run"])[:12] for row in runs[["run", "submission"]].to_dict("records")}
    sources = {str(name): str(name) for name in sorted(runs["source"].unique())}
    return Addresses(pages("boards", names), pages("sources", sources), pages("runs", keys))


def _write_all(folder: Path, store: Store, runs: pd.DataFrame, boards: list[SiteBoard], at: Addresses) -> None:
    pages_of = Renderer(store, [(one.title, at.boards[board_key(one.first)]) for one in boards], _about(store, runs))
    for name in ("assets", "boards", "sources", "runs"):
        (folder / name).mkdir()

    def write(address: str, template: str, **shown: Any) -> None:  # noqa: ANN401
        (folder / address).write_text(pages_of.page(template, address, **shown), encoding="utf-8")

    write("index.html", "index.html", **_index(runs, boards, at))
    for one in boards:
        write(at.boards[board_key(one.first)], "board.html", **board_page(store, one, at))
    for source, address in at.sources.items():
        write(address, "source.html", **source_page(store, source, boards, at))
    of_run: dict[str, list[SiteBoard]] = {}
    for one in boards:
        for run in one.runs["run"].unique():
            of_run.setdefault(str(run), []).append(one)
    for row in runs.to_dict("records"):
        write(at.of_run(row), "run.html", **run_page(store, row, of_run[str(row["run"])], at))
    (folder / "runs.csv").write_text(_csv(runs), encoding="utf-8")
    for name in ASSETS:
        (folder / "assets" / name).write_bytes(resources.files(__package__).joinpath("assets", name).read_bytes())
    (folder / "assets" / "vega.js").write_text(vega(), encoding="utf-8")


def _about(store: Store, runs: pd.DataFrame) -> dict[str, str]:
    newest = str(runs["finished"].max())[:10] if len(runs) else "-"
    return {"name": store.root.resolve().name, "version": metadata.version("satir-bench"), "newest": newest}


def _index(runs: pd.DataFrame, boards: list[SiteBoard], at: Addresses) -> dict[str, Any]:
    columns = [Column("source", "source"), Column("boards", "boards", number=True), Column("runs", "runs", number=True)]
    mine = {name: runs[runs["source"] == name] for name in at.sources}
    counts = {name: (rows[BOARD].drop_duplicates().shape[0], len(rows)) for name, rows in mine.items()}
    rows = [
        [Cell(name, link=at.sources[name]), *(Cell(str(count), float(count)) for count in counts[name])]
        for name in at.sources
    ]
    return {
        "unreadable": runs.attrs["unreadable"],
        "boards": [
            (one, at.boards[board_key(one.first)], [ranking_parts(r, at, "", one.marks) for r in one.rankings[:1]])
            for one in boards
        ],
        "sources": Table("sources", columns, rows),
        "definitions": [(name, field.description or "") for name, field in Scores.model_fields.items()],
    }


def _csv(runs: pd.DataFrame) -> str:
    """Return the table of all runs as CSV; lists are JSON with all digits, which numpy would cut."""
    lists = [name for name in runs.columns if any(isinstance(value, list | np.ndarray) for value in runs[name])]
    return for_csv(runs.assign(**{name: runs[name].map(_json_list) for name in lists}))


def _json_list(value: Any) -> Any:  # noqa: ANN401 - of a data frame
    return json.dumps(np.asarray(value).tolist()) if isinstance(value, list | np.ndarray) else value
