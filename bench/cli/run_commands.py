"""`bench plan`, `run` and `status`: run the cells of a matrix."""

from pathlib import Path
from typing import Any

import click

from bench import BenchError
from bench.cli.options import DATA, FOLDER, JOBS, STORE, WEIGHTS, Command, checked_weights, say, with_

MATRIX = (
    click.option(
        "--matrix", "name", required=True, metavar="NAME|FILE", help="Shipped matrix (see `bench ls`) or YAML file."
    ),
    click.option("--target", metavar="NAME", help="Target to use instead of the matrix's."),
    click.option(
        "--source",
        "sources",
        multiple=True,
        metavar="GLOB|FOLDER",
        help="Only these sources; a FOLDER with a card.yaml adds its source. May be repeated.",
    ),
    click.option(
        "--teacher",
        metavar="NAME|FILE",
        help="Teacher to use instead of satir's: satir/top-4 becomes satir/NAME/top-4.",
    ),
    click.option("--pool", type=FOLDER, help="Folder of unlabelled images to use instead of the target's."),
    click.option(
        "--backbone", "backbones", multiple=True, metavar="GLOB", help="Only these backbones. May be repeated."
    ),
    click.option("--smoke", is_flag=True, help="Quick test with two steps, one trial and four frames; never ranked."),
    *(DATA, STORE, WEIGHTS),
)


@click.command(cls=Command)
@with_(*MATRIX)
@click.option(
    "--retry", metavar="STATUS,...", help="Plan to repeat runs with these statuses: failed, oom, load_failed."
)
@click.option(
    "--probe",
    is_flag=True,
    help="Time a few steps of each kind of unit first, for each backbone and teacher: a forecast before anything ran.",
)
@click.option("--jobs", type=JOBS, help="--probe: worker processes, on GPUs for each of them, as for `bench run`.")
@click.option("--gpus", metavar="N,...", help="--probe: GPUs to use, by number. Default: all visible ones.")
def plan(
    store: Path,
    data: Path,
    weights: Path,
    retry: str | None,
    probe: bool,
    jobs: int | None,
    gpus: str | None,
    **matrix: Any,  # noqa: ANN401
) -> None:
    """Show what `bench run` would do, without running it.

    Estimates how long it would take and the smallest difference that it could detect. Writes nothing.
    """
    from bench.cli import extras, plan_report
    from bench.plan.matrix import load_matrix
    from bench.plan.plan import Sweep
    from results.store import Store

    if not probe and (jobs, gpus) != (None, None):
        raise BenchError("--jobs and --gpus of bench plan are for --probe")
    sweep = Sweep(load_matrix(**matrix), Store(store), data, checked_weights(weights), _statuses(retry))
    say(plan_report.plan_report(sweep))
    if probe:
        extras.require("train")
        from bench.cli.progress import Watch
        from bench.run.probe import probe as timed
        from bench.run.run import How

        how = How("local", jobs, None if gpus is None else _gpus(gpus))
        say(plan_report.forecast_text(timed(sweep, how, Watch(sweep.matrix, store))))


@click.command(cls=Command)
@with_(*MATRIX)
@click.option(
    "--executor",
    type=click.Choice(["local", "inline", "slurm"]),
    default="local",
    show_default=True,
    help="Worker processes, this process, or jobs of a Slurm cluster; with slurm the command submits and returns.",
)
@click.option(
    "--jobs", type=JOBS, help="Worker processes, on GPUs for each of them. Default: one per core, or per GPU."
)
@click.option("--gpus", metavar="N,...", help="GPUs to use, by number. Default: all visible ones.")
@click.option(
    "--slurm",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="Options of sbatch, such as partition=gpu,time=8:00:00, or throttle=JOBS to run at once. May be repeated.",
)
@click.option("--retry", metavar="STATUS,...", help="Repeat runs with these statuses: failed, oom, load_failed.")
@click.option(
    "--keep-weights",
    is_flag=True,
    help="Keep each run's network, which `bench predict`, `bench export --onnx` and `bench submit verify --spot` need.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure. Default: continue with the other runs.")
def run(  # noqa: PLR0913 - one argument per option
    store: Path,
    data: Path,
    weights: Path,
    executor: str,
    jobs: int | None,
    gpus: str | None,
    slurm: tuple[str, ...],
    retry: str | None,
    keep_weights: bool,
    fail_fast: bool,
    **matrix: Any,  # noqa: ANN401
) -> int:
    """Run the cells of a matrix that are not done yet.

    Tunes, finetunes, scores and stores. Repeating a stopped command continues it.

    Exit codes: 0 all runs done or queued, 1 wrong usage or input, 2 some runs failed or are still to do, 3 stopped early.
    """
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
    if gpus is not None and executor != "local":
        raise BenchError("--gpus is for --executor local; elsewhere set CUDA_VISIBLE_DEVICES, which Slurm does")
    numbers = None if gpus is None else _gpus(gpus)
    extras.require("train")
    sweep = Sweep(load_matrix(**matrix), Store(store), data, checked_weights(weights), _statuses(retry), keep_weights)
    watch = Watch(sweep.matrix, store)
    with watch.display():
        plan = run_matrix(sweep, How(executor, jobs, numbers, slurm, fail_fast), watch)
    return watch.closing(plan, queued=executor == "slurm")


@click.command(cls=Command)
@click.argument("cell", required=False)
@STORE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(cell: str | None, store: Path, as_json: bool) -> None:
    """Show how runs ended and which units are running.

    With CELL, given as `SOURCE x BACKBONE` or SOURCE (globs), also show its units, why some failed and which inputs changed.
    """
    from bench.cli import status
    from results.escape import for_json
    from results.store import Store

    opened = Store(store)
    if cell is None:
        cells = status.store_status(opened)
        say(for_json(cells) if as_json else status.store_text(cells))
    else:
        matches = status.cell_status(opened, cell)
        say(for_json(matches) if as_json else status.cell_text(matches))


def _gpus(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise BenchError(f"--gpus {text}: write numbers with commas, such as 0,1")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise BenchError(f"--gpus {text}: a GPU is named twice; --jobs sets the workers on each")
    return numbers


def _statuses(retry: str | None) -> list[str]:
    from pretrain_sources.config_file import suggestion
    from results.record import RETRIED

    names = [name.strip() for name in (retry or "").split(",") if name.strip()]
    for name in names:
        if name == "diverged":
            raise BenchError(
                "--retry diverged: the same seed would diverge again; use a protocol with another range of learning rates"
            )
        if name not in RETRIED:
            raise BenchError(f"--retry {name}{suggestion(name, RETRIED)}")
    return names
