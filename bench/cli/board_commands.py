"""Results of a store: `bench table`, `compare`, `claim`, `scaling`, `report`, `leaks` and `dashboard`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench import BenchError
from bench.cli.options import BACKBONE, BOARD, DATA, FOLDER, METRIC, SCHEDULE, STORE, TEST_SPLIT, Command, say, with_


@click.command(cls=Command)
@STORE
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "md", "latex"]),
    default="table",
    show_default=True,
    help="Output format.",
)
@click.option(
    "--tiers",
    "views",
    flag_value="tiers",
    multiple=True,
    help="Show sources ranked in tiers.",
)
@click.option("--per-class", "views", flag_value="per-class", multiple=True, help="Show the score of each class.")
@click.option(
    "--sources", "views", flag_value="sources", multiple=True, help="Show licences and what sources have seen."
)
@click.option("--tuning", "views", flag_value="tuning", multiple=True, help="Show what tuning gained.")
@click.option(
    "--columns",
    metavar="[NAME,...]",
    is_flag=False,
    flag_value="list",
    help="Add these scores to the board, such as precision,recall,area; without a name, list them.",
)
@click.option(
    "--iou",
    type=click.Choice(["present", "mmseg"]),
    help="mIoU over classes that are present, or as in mmsegmentation.",
)
@with_(METRIC, BACKBONE, *BOARD, SCHEDULE, TEST_SPLIT)
def table(
    store: Path,
    form: str,
    views: tuple[str, ...],
    columns: str | None,
    iou: str | None,
    metric: str,
    **names: Any,  # noqa: ANN401
) -> None:
    """Show the leaderboard of a store.

    Each cell has the mean and the 95 % interval over its replicates for both metrics; a failed or skipped cell has its reason.
    Where a target has further test splits, a column has the mean mIoU on each; --test shows the board of one.
    --schedule default shows the runs with the default schedule, and how the tuned ones differ from them. --columns adds scores of
    each class, such as precision and recall. --tiers, --per-class, --sources and --tuning show other tables of one board instead.
    """
    from bench.cli import board_columns

    if columns == board_columns.LIST:
        say(board_columns.listing())
        return
    added = board_columns.columns_of(columns, views)
    if len(views) > 1 and form in ("csv", "json"):
        raise BenchError(f"--format {form} writes one table: choose one of {', '.join(f'--{view}' for view in views)}")
    if views:
        if iou is not None:
            raise BenchError(f"--iou applies to the board and not to --{views[0]}")
        from bench.cli import questions
        from results.store import Store

        say("\n\n".join(questions.view_text(Store(store), view, metric, form, **names) for view in views))
        return
    if metric != "miou":
        raise BenchError("--metric applies only to --tiers and --per-class: the board shows both metrics")
    say(_board(store, form, added, iou, names))


def _board(store: Path, form: str, added: Sequence[str], iou: str | None, names: dict[str, Any]) -> str:
    """Format the board. added: scores to add. names: of the cells to show, and the test split and schedule."""
    from bench.cli import tables
    from results import load_table
    from results.board import board
    from results.board_choice import on_schedule
    from results.escape import for_terminal
    from results.further import on_split, with_further
    from results.iou_convention import with_convention
    from results.schedule_names import DEFAULT
    from results.tuned_against_default import with_tuned

    runs = load_table(store)
    for line in runs.attrs["unreadable"]:
        say(for_terminal(f"left out: {line}"), err=True)
    split, schedule = names.pop("test"), names.pop("schedule")
    whole = with_convention(on_split(runs, split), iou)
    runs = on_schedule(whole, schedule)
    cells = board(runs) if split is not None else with_further(board(runs), runs)
    cells = with_tuned(cells, whole) if schedule == DEFAULT else cells
    for column, value in names.items():
        cells = cells if value is None else cells[cells[column] == value]
    if len(runs) and cells.empty:
        raise BenchError(
            "no runs match --target, --protocol, --train-frac, --backbone, --schedule and --test; leave them out to show all runs"
        )
    return tables.table_text(cells, runs, form, whole, added)


@click.command(cls=Command)
@click.argument("a")
@click.argument("b")
@STORE
@with_(METRIC, BACKBONE, *BOARD, SCHEDULE, TEST_SPLIT)
@click.option("--per-class", is_flag=True, help="Compare each class, too.")
def compare(a: str, b: str, store: Path, metric: str, backbone: str | None, per_class: bool, **board: Any) -> None:  # noqa: ANN401
    """Compare source A with source B.

    Prints the difference A - B with its interval and p value, and the smallest difference that this data could detect.
    """
    from bench.cli.questions import compare_text
    from results.store import Store

    say(compare_text(Store(store), a, b, metric, backbone, per_class, **board))


@click.command(cls=Command)
@click.argument("text", required=False)
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="YAML file: a list of {claim, expect}.")
@click.option("--format", "form", type=click.Choice(["text", "md"]), default="text", help="Output format with --file.")
@STORE
@with_(*BOARD, SCHEDULE, TEST_SPLIT)
def claim(text: str | None, file: Path | None, form: str, store: Path, **board: Any) -> int:  # noqa: ANN401
    """Judge a claim about two sources.

    TEXT is a claim such as "satir > imagenet by 0.01 miou on segformer-b0" or "satir ~ imagenet within 0.01".

    Exit codes: 0 supported, 4 not shown, 5 contradicted. With --file: 0 if every claim is judged as expected, else 2.
    """
    from bench.cli.claims import claim_text, claims_text
    from results.store import Store

    if (text is None) == (file is None):
        raise BenchError('give either one claim, such as "satir > imagenet by 0.01", or --file')
    if file is not None:
        if any(value is not None for value in board.values()):
            raise BenchError(
                "leave out --target, --protocol, --train-frac, --schedule and --test: each claim in --file names its own"
            )
        output, as_expected = claims_text(Store(store), file, form)
        say(output)
        return 0 if as_expected else 2
    output, judgement = claim_text(Store(store), str(text), **board)
    say(output)
    return {"SUPPORTED": 0, "NOT SHOWN": 4, "CONTRADICTED": 5}[judgement.verdict]


@click.command(cls=Command)
@click.option("--axis", default="n", show_default=True, help="What varies: n (images), groups or train_fraction.")
@click.option("--source", required=True, help="Source whose variants to show, such as satir.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Also draw the curve into this file, .png or .svg."
)
@STORE
@with_(METRIC, *BOARD[:2], SCHEDULE, TEST_SPLIT)
def scaling(axis: str, source: str, out: Path | None, store: Path, metric: str, **board: str | None) -> None:
    """Show how a source scales with images, groups or labels.

    Reports for each backbone whether the score is still rising or has reached a plateau.
    """
    from bench.cli.questions import scaling_text
    from results.store import Store

    say(scaling_text(Store(store), axis, source, metric, out, **board))


@click.command(cls=Command)
@click.option("--out", type=FOLDER, required=True, help="Folder for the site: new, empty, or with an older site.")
@STORE
def report(out: Path, store: Path) -> None:
    """Write the results of a store as a static site.

    Any web host can serve it, and it also opens as files: it needs no server and no network. A page for each board has tables that
    sort and filter, tiers, costs, pairs, curves and figures; each source and each run has a page; runs.csv has every run. A link
    keeps the filter, order and columns of tables. An older site is replaced when the new one is whole.
    """
    from bench.cli.site.write import write_site
    from results.store import Store

    say(write_site(Store(store), out))


@click.command("leaks", cls=Command)
@click.option(
    "--source", "names", required=True, multiple=True, metavar="NAME|FILE|FOLDER", help="Source, or its card."
)
@click.option("--target", required=True, metavar="NAME", help="Target whose test images to look for.")
@click.option("--pool", type=FOLDER, help="Folder of images to search, instead of the target's unlabelled ones.")
@with_(DATA, STORE)
def leaks_command(names: tuple[str, ...], target: str, pool: Path | None, data: Path, store: Path) -> None:
    """Search a source's images for a target's test images.

    Finds near-duplicates among the images that the source was made from, even if flipped, cropped to 80 %, rescaled, inverted,
    compressed, or changed in gain, gamma or noise. The result is stored: the board marks the source, and its pairs are compared
    on the other test images.
    """
    from bench.cli import leak_check
    from results.store import Store

    say(leak_check.look(names, target, data, pool, Store(store)))


@click.command(cls=Command)
@STORE
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0 picks a free port.")
@click.option(
    "--host", default="localhost", show_default=True, help="Address to listen on; 0.0.0.0 for all interfaces."
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Further host name to accept, such as a proxy's; requests for other names are refused.",
)
@click.option("--base-path", default="", metavar="PATH", help="URL path under which a proxy serves it.")
@click.option("--browser/--no-browser", default=True, help="Open a browser.")
def dashboard(store: Path, **options: Any) -> None:  # noqa: ANN401
    """Serve the leaderboard of a store as a web page.

    Without a store, it serves the results that ship with this project.
    """
    import json
    import os

    sys.stdout.flush()
    os.environ["BENCH_STORE"] = str(store)
    os.execv(sys.executable, [sys.executable, "-m", "dashboard", json.dumps(options)])
