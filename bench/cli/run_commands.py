"""`bench plan`, `run` and `status`: sweeps."""

from pathlib import Path
from typing import Any

import click

from bench import BenchError
from bench.cli.options import DATA, FOLDER, JOBS, STORE, WEIGHTS, Command, checked_weights, say, with_

MATRIX = (
    click.option(
        "--matrix", "name", required=True, metavar="NAME|FILE", help="A shipped matrix (see `bench ls`) or a YAML file."
    ),
    click.option("--target", metavar="NAME", help="Another target than the matrix names."),
    click.option(
        "--source",
        "sources",
        multiple=True,
        metavar="GLOB|FOLDER",
        help="Only these sources; a FOLDER with a card.yaml adds one beside the matrix's.",
    ),
    click.option("--teacher", metavar="NAME|FILE", help="In place of satir's: satir/top-4 becomes satir/NAME/top-4."),
    click.option("--pool", type=FOLDER, help="Folder of unlabelled images, in place of the target's own."),
    click.option("--backbone", "backbones", multiple=True, metavar="GLOB", help="Only these backbones."),
    click.option("--smoke", is_flag=True, help="Two steps, one trial, four frames: does it run? Never ranked."),
    *(DATA, STORE, WEIGHTS),
)


@click.command(cls=Command)
@with_(*MATRIX)
@click.option("--retry", metavar="STATUS,...", help="As if these were to be run again: failed, oom, load_failed.")
def plan(store: Path, data: Path, weights: Path, retry: str | None, **matrix: Any) -> None:  # noqa: ANN401
    """Say what `bench run` would do, how long it would take, and how small a difference it could find. Writes nothing."""
    from bench.cli import plan_report
    from bench.plan.matrix import load_matrix
    from bench.plan.plan import Sweep
    from results.store import Store

    sweep = Sweep(load_matrix(**matrix), Store(store), data, checked_weights(weights), _statuses(retry))
    say(plan_report.plan_report(sweep))


@click.command(cls=Command)
@with_(*MATRIX)
@click.option(
    "--executor",
    type=click.Choice(["local", "inline", "slurm"]),
    default="local",
    show_default=True,
    help="Worker processes; this process; jobs of a cluster, which need nothing that stays alive.",
)
@click.option("--jobs", type=JOBS, help="Workers. Default: one a core.")
@click.option(
    "--slurm",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="As sbatch has them: partition=gpu,time=8:00:00; exclude=n1,n2; also throttle=JOBS at a time. May be repeated.",
)
@click.option("--retry", metavar="STATUS,...", help="Run these again: failed, oom, load_failed.")
@click.option("--keep-weights", is_flag=True, help="Keep each run's network: `bench submit verify --spot` asks for it.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure. Default: go on with all that can be done.")
def run(  # noqa: PLR0913 - an argument for each option
    store: Path,
    data: Path,
    weights: Path,
    executor: str,
    jobs: int | None,
    slurm: tuple[str, ...],
    retry: str | None,
    keep_weights: bool,
    fail_fast: bool,
    **matrix: Any,  # noqa: ANN401
) -> int:
    """Run what is not done of a matrix: tune, finetune, score, store."""
    from bench.cli import extras
    from bench.cli.progress import Watch
    from bench.plan.matrix import load_matrix
    from bench.plan.plan import Sweep
    from bench.run.run import How, run_matrix
    from results.store import Store

    if slurm and executor != "slurm":
        raise BenchError("--slurm is for --executor slurm")
    if jobs is not None and executor != "local":
        raise BenchError("--jobs is for --executor local")
    extras.require("train")
    sweep = Sweep(load_matrix(**matrix), Store(store), data, checked_weights(weights), _statuses(retry), keep_weights)
    watch = Watch(sweep.matrix, store)
    with watch.display():
        plan = run_matrix(sweep, How(executor, jobs, slurm, fail_fast), watch)
    return watch.closing(plan, queued=executor == "slurm")


@click.command(cls=Command)
@click.argument("cell", required=False)
@STORE
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(cell: str | None, store: Path, as_json: bool) -> None:
    """Say how many runs of each cell ended how, and what is at work.

    CELL, `SOURCE x BACKBONE` or SOURCE (globs), asks for more: its units, why some failed, and which inputs have changed.
    """
    from bench.cli import status
    from results.escape import for_json
    from results.store import Store

    held = Store(store)
    if cell is None:
        told = status.store_status(held)
        say(for_json(told) if as_json else status.store_text(told))
    else:
        cells = status.cell_status(held, cell)
        say(for_json(cells) if as_json else status.cell_text(cells))


def _statuses(retry: str | None) -> list[str]:
    from pretrain_sources.config_file import suggestion
    from results.record import RETRIED

    names = [name.strip() for name in (retry or "").split(",") if name.strip()]
    for name in names:
        if name == "diverged":
            raise BenchError(
                "--retry diverged: the same seed diverges again; another range of rates is another protocol"
            )
        if name not in RETRIED:
            raise BenchError(f"--retry {name}{suggestion(name, RETRIED)}")
    return names
