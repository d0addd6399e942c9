"""What a store knows: `bench table`, `compare`, `claim`, `scaling`, `report`, `leaks` and `dashboard`."""

import sys
from pathlib import Path
from typing import Any

import click

from bench import BenchError
from bench.cli.options import BACKBONE, BOARD, DATA, FOLDER, METRIC, STORE, Command, say, with_


@click.command(cls=Command)
@STORE
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json", "md", "latex"]), default="table", show_default=True
)
@click.option(
    "--tiers",
    "views",
    flag_value="tiers",
    multiple=True,
    help="Instead sources in tiers: which are established better.",
)
@click.option("--per-class", "views", flag_value="per-class", multiple=True, help="Instead every class.")
@click.option("--tuning", "views", flag_value="tuning", multiple=True, help="Instead what tuning was worth.")
@with_(METRIC, BACKBONE, *BOARD)
def table(store: Path, form: str, views: tuple[str, ...], metric: str, backbone: str | None, **names: Any) -> None:  # noqa: ANN401
    """Show the board: mean and interval over replicates, both metrics, failed and skipped cells with their reason."""
    if len(views) > 1 and form in ("csv", "json"):
        raise BenchError(f"--format {form} is one table: name one of {', '.join(f'--{view}' for view in views)}")
    if views:
        from bench.cli import questions
        from results.store import Store

        say("\n\n".join(questions.view_text(Store(store), view, metric, form, backbone, **names) for view in views))
        return
    from bench.cli import tables
    from results import load_table
    from results.board import board
    from results.escape import for_terminal

    if metric != "miou":
        raise BenchError("the board shows both metrics; --metric goes with --tiers or --per-class")
    runs = load_table(store)
    for line in runs.attrs["unreadable"]:
        say(for_terminal(f"left out: {line}"), err=True)
    cells = board(runs)
    for column, value in {"backbone": backbone, **names}.items():
        cells = cells if value is None else cells[cells[column] == value]
    if len(runs) and cells.empty:
        raise BenchError(
            "no runs of what --target, --protocol, --train-frac and --backbone name; without them all are shown"
        )
    say(tables.table_text(cells, runs, form))


@click.command(cls=Command)
@click.argument("a")
@click.argument("b")
@STORE
@with_(METRIC, BACKBONE, *BOARD)
@click.option("--per-class", is_flag=True, help="Class by class too.")
def compare(a: str, b: str, store: Path, metric: str, backbone: str | None, per_class: bool, **board: Any) -> None:  # noqa: ANN401
    """How far source A is ahead of source B, how surely, and how large a difference this data could have shown."""
    from bench.cli.questions import compare_text
    from results.store import Store

    say(compare_text(Store(store), a, b, metric, backbone, per_class, **board))


@click.command(cls=Command)
@click.argument("text", required=False)
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="YAML: a list of {claim, expect}.")
@click.option("--format", "form", type=click.Choice(["text", "md"]), default="text", help="Of a --file.")
@STORE
@with_(*BOARD)
def claim(text: str | None, file: Path | None, form: str, store: Path, **board: Any) -> int:  # noqa: ANN401
    """Judge a claim such as "satir > imagenet by 0.01 miou on segformer-b0" or "satir ~ imagenet within 0.01".

    Exit code: 0 supported, 4 not shown, 5 contradicted; with --file 0 where all are as expected, else 2.
    """
    from bench.cli.questions import claim_text, claims_text
    from results.store import Store

    if (text is None) == (file is None):
        raise BenchError('name a claim, "satir > imagenet by 0.01", or a --file of them')
    if file is not None:
        if any(value is not None for value in board.values()):
            raise BenchError("each claim of a --file names its own target, protocol and train_frac")
        told, good = claims_text(Store(store), file, form)
        say(told)
        return 0 if good else 2
    told, found = claim_text(Store(store), str(text), **board)
    say(told)
    return {"SUPPORTED": 0, "NOT SHOWN": 4, "CONTRADICTED": 5}[found.verdict]


@click.command(cls=Command)
@click.option("--axis", default="n", show_default=True, help="n, groups or train_fraction.")
@click.option("--source", required=True, help="The source that grows, such as satir.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A picture, .png or .svg.")
@STORE
@with_(METRIC, *BOARD[:2])
def scaling(axis: str, source: str, out: Path | None, store: Path, metric: str, **board: str | None) -> None:
    """How a source's score grows with its images, their groups or the target's labels: still rising, or a plateau?"""
    from bench.cli.questions import scaling_text
    from results.store import Store

    say(scaling_text(Store(store), axis, source, metric, out, **board))


@click.command(cls=Command)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the page.")
@STORE
def report(out: Path, store: Path) -> None:
    """Write all of it as one static page: table, tiers, pairs, curves, protocol, definitions."""
    from bench.cli.report import write_report
    from results.store import Store

    say(write_report(Store(store), out))


@click.command("leaks", cls=Command)
@click.option(
    "--source", "names", required=True, multiple=True, metavar="NAME|FILE|FOLDER", help="A source, or its card."
)
@click.option("--target", required=True, metavar="NAME", help="Whose test images must not have been seen.")
@click.option("--pool", type=FOLDER, help="Folder of unlabelled images, in place of the target's own.")
@with_(DATA, STORE)
def leaks_command(names: tuple[str, ...], target: str, pool: Path | None, data: Path, store: Path) -> None:
    """Look for near-duplicates of TARGET's test images among the images that a source was made from.

    Copies are found that were flipped, cropped to 80 %, rescaled, inverted, compressed, or given other gain, gamma or
    noise. What was found stays in the store: the board marks the source, and its pairs are compared on the other images.
    """
    from bench.cli import leak_check
    from results.store import Store

    say(leak_check.look(names, target, data, pool, Store(store)))


@click.command(cls=Command)
@STORE
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0: one that is free.")
@click.option(
    "--host", default="localhost", show_default=True, help="Address to listen on; 0.0.0.0: all of this machine's."
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="A further name in addresses, such as that of a proxy; requests under other names are refused.",
)
@click.option("--base-path", default="", metavar="PATH", help="Path under which a proxy shows it.")
@click.option("--browser/--no-browser", default=True, help="Whether to open a browser on it.")
def dashboard(store: Path, **asked: Any) -> None:  # noqa: ANN401
    """Serve the leaderboard of a store, or of the results that ship with this project where there is none yet."""
    import json
    import os

    sys.stdout.flush()
    os.environ["BENCH_STORE"] = str(store)
    os.execv(sys.executable, [sys.executable, "-m", "dashboard", json.dumps(asked)])
