"""The command line: thin commands over the library. Heavy imports happen inside the commands that need them.

Exit codes: 0 all done, 1 the call is wrong or cannot be done here, 2 some runs failed, 3 stopped early.
"""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from bench import STOPPED, BenchError, StoppedEarly

DEFAULT_WEIGHTS = Path("weights")
MOST_CHARACTERS = 4096  # of an option's text: as many as a path may have
SEED = click.IntRange(0, 2**63 - 1)
JOBS = click.IntRange(1, 1024)


def _wrong(text: str) -> str | None:
    """Why no option may be given this text, or None."""
    if not text:
        return "must not be empty"
    if len(text) > MOST_CHARACTERS:
        return f"has {len(text)} characters; at most {MOST_CHARACTERS}"
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return "holds characters that cannot be printed"
    return None


class _Command(click.Command):
    """A command that takes no empty, endless or unprintable text in any option or argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.get_params(ctx):
            value = given.get(str(param.name))
            for text in value if isinstance(value, list | tuple) else [value]:
                if isinstance(text, str) and (why := _wrong(text)):
                    raise click.BadParameter(why, ctx, param)
        return super().parse_args(ctx, args)


class _Group(click.Group):
    """A group of such commands, and of groups like it."""

    command_class = _Command
    group_class = type


class _Share(click.FloatRange):
    """A number above 0 and up to 1."""

    def __init__(self) -> None:
        super().__init__(0, 1, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """The number, which must not be nan: no comparison refuses that."""
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def _folder(name: str, default: str | Path, text: str) -> Callable[..., Any]:
    """The option --NAME for a folder, also read from BENCH_NAME."""
    kind = click.Path(path_type=Path)
    variable = f"BENCH_{name.upper()}"
    return click.option(f"--{name}", type=kind, envvar=variable, default=default, show_default=True, help=text)


STORE = _folder("store", "bench-store", "Folder of results.")
DATA = _folder("data", "data", "Folder that holds a folder for each target.")
METRIC = click.option("--metric", default="miou", show_default=True, help="miou or weighted_f.")
BACKBONE = click.option("--backbone", help="One backbone alone.")
BOARD = (
    click.option("--target", help="Of several boards, this target's."),
    click.option("--protocol", help="Of several boards, this protocol's."),
    click.option("--train-frac", type=_Share(), help="Share of the target's labels. Default: all of them."),
)
WEIGHTS = _folder("weights", DEFAULT_WEIGHTS, "Folder of weights you downloaded.")


def _say(text: object, err: bool = False) -> None:
    """Prints lines; whatever a stranger's text in them holds, nothing but the end of a line reaches the terminal unseen."""
    from results.escape import visible

    click.echo("\n".join(map(visible, str(text).split("\n"))), err=err)


def _with(*options: Callable[..., Any]) -> Callable[..., Any]:
    """The options as one decorator, shown in the order given."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="satir-bench")
def cli() -> None:
    """Which pretraining source is best for a thermal segmentation model, by how much, and how sure are we?"""


@cli.command()
@DATA
def ls(data: Path) -> None:
    """List targets, matrices, protocols, sources and backbones."""
    from bench import listing

    _say(listing.listing(data))


@cli.group()
def data() -> None:
    """Check a target's files, or make the rendered one."""


@data.command()
@click.argument("target")
@DATA
def check(target: str, data: Path) -> None:
    """Read every file of TARGET and report counts, sizes, classes and whatever is wrong."""
    from bench import listing
    from bench.targets import open_target, pool_notes

    opened = open_target(target, data)
    _say(listing.data_report(opened, pool_notes(opened)))


@data.command()
@click.argument("target")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File of the manifest, .json."
)
@DATA
def manifest(target: str, out: Path, data: Path) -> None:
    """Write the ids and class totals of TARGET's test images, which submissions are judged by; no image is in it."""
    from bench.targets import manifest as manifests
    from bench.targets import open_target

    made = manifests.make_manifest(open_target(target, data))
    manifests.write_manifest(made, out)
    _say(f"{len(made.test)} test images of {target} in {out}")


@data.command()
@click.argument("target", type=click.Choice(["scenes"]))
@click.option("--n", type=int, default=400, show_default=True, help="Labelled frames; as many go into the pool.")
@click.option("--size", metavar="HEIGHTxWIDTH", default="240x320", show_default=True, help="In pixels.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@DATA
def make(target: str, n: int, size: str, seed: int, data: Path) -> int:
    """Render TARGET into the data folder; what is there already is kept."""
    from bench.targets import scenes
    from bench.watch import counting

    folder, height_width = data / target, scenes.size_of(size)
    if folder.exists():
        same = scenes.made_by(folder, scenes.command(n, height_width, seed))
        _say(f"{folder} is there already{'' if same else ', made otherwise'}; delete it to make it anew", err=not same)
        return 0 if same else 1
    try:
        with counting(f"rendering {target}", "frames") as report:
            frames = scenes.make(folder, n, height_width, seed, report)
    except KeyboardInterrupt:
        _say("stopped; nothing was left behind", err=True)
        return 3
    _say(f"{frames} frames in {folder}, half of them labelled")
    return 0


def _choice(name: str, field: str, text: str) -> Callable[..., Any]:
    """An option whose values are those of a field of the recipe, which is too slow to import for --help."""
    values = {
        "rank_by": ("predicted_iou", "stability", "area", "area_ascending", "random"),
        "overlap": ("worse_wins", "better_wins"),
        "uncovered": ("zero", "ignore"),
    }[field]
    return click.option(f"--{name}", field, type=click.Choice(values), help=text)


LABELLING = (
    click.option("--top-k", type=int, help="Masks that are kept: ranks 1 to K."),
    _choice("rank-by", "rank_by", "What orders the masks."),
    _choice("overlap", "overlap", "Which of two masks a pixel belongs to."),
    _choice("uncovered", "uncovered", "Pixels in no mask: class 0, or ignored."),
    click.option("--min-area", "min_area_px", type=int, help="Smaller masks are left out, in pixels."),
    click.option("--binary/--ranked", default=None, help="Every mask is class 1, or its rank."),
)
FOLDER = click.Path(path_type=Path)


@cli.group()
def corpus() -> None:
    """Make pseudo-labels from unlabelled images, make them anew with other rules, or check a corpus."""


@corpus.command("make")
@click.option("--pool", type=FOLDER, required=True, help="Folder of unlabelled thermal images.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the corpus; a killed call goes on there.")
@click.option("--recipe", default="satir", show_default=True, metavar="NAME|FILE", help="A source such as satir/top-4.")
@click.option("--teacher", metavar="NAME", help="sam, felzenszwalb, or module:function of your own.")
@click.option("--model", help="SAM: vit_h, vit_l, vit_b, sam_tiny, or module:function.")
@click.option(
    "--checkpoint", help="SAM: a file of tensors, or sam-tiny (shipped, not Meta's); default: Meta's, which is fetched."
)
@click.option(
    "--points-per-batch", type=click.IntRange(1, 65_536), help="SAM: prompts decoded at a time; bounds the memory."
)
@_with(*LABELLING, WEIGHTS)
@click.option("--jobs", type=JOBS, help="Images at a time. Default: one a core; one for SAM.")
def corpus_make(
    pool: Path,
    out: Path,
    recipe: str,
    teacher: str | None,
    weights: Path,
    jobs: int | None,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Ask a teacher for masks on every image of a pool and make label maps of them."""
    from bench import corpora

    sam = {name: settings.pop(name) for name in ("model", "checkpoint", "points_per_batch")}
    asked = corpora.recipe_of(recipe, teacher, settings, **sam)
    made, speed = corpora.make(pool, asked, out, weights, jobs, lambda note: _say(note, err=True))
    _say(corpora.told(made, out, speed))


@corpus.command()
@click.argument("source", metavar="CORPUS", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder of the new corpus.")
@_with(*LABELLING)
def rerank(source: Path, out: Path, **settings: Any) -> None:  # noqa: ANN401
    """Make other label maps of the masks that CORPUS holds; no teacher is asked."""
    from bench import corpora

    made, speed = corpora.rerank(source, out, settings)
    _say(corpora.told(made, out, speed))


@corpus.command("check")
@click.argument("folder", metavar="CORPUS", type=FOLDER)
@click.option("--classes", type=click.IntRange(2, 255), help="How many classes a ready-made corpus has.")
@click.option("--images", type=FOLDER, help="Where its images are, if not in CORPUS/images.")
def corpus_check(folder: Path, classes: int | None, images: Path | None) -> None:
    """Read every image and label map of CORPUS (images/ and labels/) and report whatever is wrong."""
    from bench import corpora, listing

    _say(listing.corpus_report(folder, *corpora.check(folder, classes, images)))


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


@cli.command()
@_with(*MATRIX)
@click.option("--retry", metavar="STATUS,...", help="As if these were to be run again: failed, oom, load_failed.")
def plan(store: Path, data: Path, weights: Path, retry: str | None, **matrix: Any) -> None:  # noqa: ANN401
    """Say what `bench run` would do, how long it would take, and how small a difference it could find. Writes nothing."""
    from bench import forecast
    from bench.matrix import load_matrix

    _say(forecast.plan_report(load_matrix(**matrix), store, data, _weights(weights), _statuses(retry)))


@cli.command()
@_with(*MATRIX)
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
def run(
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
    from bench.matrix import load_matrix
    from bench.run import How, run_matrix
    from bench.watch import Watch
    from results.store import Store

    if slurm and executor != "slurm":
        raise BenchError("--slurm is for --executor slurm")
    if jobs is not None and executor != "local":
        raise BenchError("--jobs is for --executor local")
    how = How(executor, jobs, slurm, fail_fast, keep_weights)
    watch = Watch(load_matrix(**matrix), store)
    with watch.display():
        plan = run_matrix(watch.matrix, Store(store), data, _weights(weights), how, watch, _statuses(retry))
    return watch.closing(plan, queued=executor == "slurm")


@cli.command()
@click.argument("cell", required=False)
@STORE
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(cell: str | None, store: Path, as_json: bool) -> None:
    """Say how many runs of each cell ended how, and what is at work.

    CELL, `SOURCE x BACKBONE` or SOURCE (globs), asks for more: its units, why some failed, and which inputs have changed.
    """
    from bench import status
    from results.escape import for_json
    from results.store import Store

    held = Store(store)
    if cell is None:
        told = status.store_status(held)
        _say(for_json(told) if as_json else status.store_text(told))
    else:
        cells = status.cell_status(held, cell)
        _say(for_json(cells) if as_json else status.cell_text(cells))


@cli.command()
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
@_with(METRIC, BACKBONE, *BOARD)
def table(store: Path, form: str, views: tuple[str, ...], metric: str, backbone: str | None, **names: Any) -> None:  # noqa: ANN401
    """Show the board: mean and interval over replicates, both metrics, failed and skipped cells with their reason."""
    if len(views) > 1 and form in ("csv", "json"):
        raise BenchError(f"--format {form} is one table: name one of {', '.join(f'--{view}' for view in views)}")
    if views:
        from bench import ask
        from results.store import Store

        _say("\n\n".join(ask.view_text(Store(store), view, metric, form, backbone, **names) for view in views))
        return
    from bench import show
    from results import load_table
    from results.board import board
    from results.escape import for_terminal

    if metric != "miou":
        raise BenchError("the board shows both metrics; --metric goes with --tiers or --per-class")
    runs = load_table(store)
    for line in runs.attrs["unreadable"]:
        _say(for_terminal(f"left out: {line}"), err=True)
    cells = board(runs)
    for column, value in {"backbone": backbone, **names}.items():
        cells = cells if value is None else cells[cells[column] == value]
    if len(runs) and cells.empty:
        raise BenchError(
            "no runs of what --target, --protocol, --train-frac and --backbone name; without them all are shown"
        )
    _say(show.table_text(cells, runs, form))


@cli.command()
@click.argument("a")
@click.argument("b")
@STORE
@_with(METRIC, BACKBONE, *BOARD)
@click.option("--per-class", is_flag=True, help="Class by class too.")
def compare(a: str, b: str, store: Path, metric: str, backbone: str | None, per_class: bool, **board: Any) -> None:  # noqa: ANN401
    """How far source A is ahead of source B, how surely, and how large a difference this data could have shown."""
    from bench.ask import compare_text
    from results.store import Store

    _say(compare_text(Store(store), a, b, metric, backbone, per_class, **board))


@cli.command()
@click.argument("text", required=False)
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="YAML: a list of {claim, expect}.")
@click.option("--format", "form", type=click.Choice(["text", "md"]), default="text", help="Of a --file.")
@STORE
@_with(*BOARD)
def claim(text: str | None, file: Path | None, form: str, store: Path, **board: Any) -> int:  # noqa: ANN401
    """Judge a claim such as "satir > imagenet by 0.01 miou on segformer-b0" or "satir ~ imagenet within 0.01".

    Exit code: 0 supported, 4 not shown, 5 contradicted; with --file 0 where all are as expected, else 2.
    """
    from bench.ask import claim_text, claims_text
    from results.store import Store

    if (text is None) == (file is None):
        raise BenchError('name a claim, "satir > imagenet by 0.01", or a --file of them')
    if file is not None:
        if any(value is not None for value in board.values()):
            raise BenchError("each claim of a --file names its own target, protocol and train_frac")
        told, good = claims_text(Store(store), file, form)
        _say(told)
        return 0 if good else 2
    told, found = claim_text(Store(store), str(text), **board)
    _say(told)
    return {"SUPPORTED": 0, "NOT SHOWN": 4, "CONTRADICTED": 5}[found.verdict]


@cli.command()
@click.option("--axis", default="n", show_default=True, help="n, groups or train_fraction.")
@click.option("--source", required=True, help="The source that grows, such as satir.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A picture, .png or .svg.")
@STORE
@_with(METRIC, *BOARD[:2])
def scaling(axis: str, source: str, out: Path | None, store: Path, metric: str, **board: str | None) -> None:
    """How a source's score grows with its images, their groups or the target's labels: still rising, or a plateau?"""
    from bench.ask import scaling_text
    from results.store import Store

    _say(scaling_text(Store(store), axis, source, metric, out, **board))


@cli.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the page.")
@STORE
def report(out: Path, store: Path) -> None:
    """Write all of it as one static page: table, tiers, pairs, curves, protocol, definitions."""
    from bench.report import write_report
    from results.store import Store

    _say(write_report(Store(store), out))


@cli.command("leaks")
@click.option(
    "--source", "names", required=True, multiple=True, metavar="NAME|FILE|FOLDER", help="A source, or its card."
)
@click.option("--target", required=True, metavar="NAME", help="Whose test images must not have been seen.")
@click.option("--pool", type=FOLDER, help="Folder of unlabelled images, in place of the target's own.")
@_with(DATA, STORE)
def leaks_command(names: tuple[str, ...], target: str, pool: Path | None, data: Path, store: Path) -> None:
    """Look for near-duplicates of TARGET's test images among the images that a source was made from.

    Copies are found that were flipped, cropped to 80 %, rescaled, inverted, compressed, or given other gain, gamma or
    noise. What was found stays in the store: the board marks the source, and its pairs are compared on the other images.
    """
    from bench import leaks
    from results.store import Store

    _say(leaks.look(names, target, data, pool, Store(store)))


@cli.group()
def submit() -> None:
    """Hand in a source of your own, or judge what somebody handed in."""


SOURCE = click.argument("folder", type=click.Path(path_type=Path))


@submit.command("init")
@click.argument("name")
@click.option("--kind", type=click.Choice(["checkpoint", "corpus", "recipe"]), required=True, help="What it brings.")
def submit_init(name: str, kind: Any) -> None:  # noqa: ANN401
    """Write a folder NAME with a card to be filled in."""
    from bench.matrix import CARD
    from bench.submission import submit

    folder = submit.init(name, kind)
    _say(f"{folder / CARD} is to be filled in; then: bench submit check {folder}")


@submit.command("check")
@SOURCE
@click.option(
    "--target", metavar="NAME", help="Look for its test images among the source's images too, as `bench leaks`."
)
@click.option(
    "--pool", type=FOLDER, help="For --target: the images that the source was made from, where the card names none."
)
@_with(WEIGHTS, DATA, STORE)
def submit_check(folder: Path, weights: Path, target: str | None, pool: Path | None, data: Path, store: Path) -> int:
    """Judge the card in FOLDER, and what it names, as a reviewer does: every fault at once."""
    from bench.submission import submit
    from results.store import Store

    faults, good = submit.check(folder, weights)
    if target is not None and not faults:
        from bench import leaks

        try:
            good += leaks.look([str(folder)], target, data, pool, Store(store)).splitlines()
        except leaks.NoImages as error:
            good.append(f"not looked for leaks: {error}")
    return _told(folder, faults, good, f"it can be run: bench run --matrix ... --source {folder}")


@submit.command("pack")
@SOURCE
@click.option("--out", type=FOLDER, default="submissions", show_default=True, help="Where the bundle goes.")
@STORE
def submit_pack(folder: Path, out: Path, store: Path) -> int:
    """Make a bundle of the card in FOLDER and of its runs: records, evidence, certificates, checksums; no images, no weights."""
    from bench.submission import submit, verify
    from results.store import Store

    made, notes = submit.pack(folder, out, Store(store))
    judged = verify.judge(made)
    return _told(made, judged.faults, [*notes, *judged.done, *judged.notes], "it can be handed in; see CONTRIBUTING.md")


@submit.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--manifest",
    "manifests",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Of a target whose own does not ship.",
)
@click.option(
    "--spot", type=click.IntRange(1, 1_000_000), help="Predict so many random test images anew with its networks."
)
@click.option("--networks", type=FOLDER, help="Its networks. Default: the folder BUNDLE-networks.")
@click.option("--reproduce", is_flag=True, help="Train one random run of it again.")
@click.option("--source", type=FOLDER, help="The submitter's folder: the files that its card names are loaded anew.")
@click.option("--pool", type=FOLDER, help="For --reproduce: unlabelled images, in place of the target's own.")
@click.option("--seed", type=SEED, help="Of what is drawn at random. Default: another one each time.")
@click.option("--by", help="Who checks: stands in the verdict.")
@_with(DATA, STORE, WEIGHTS)
def submit_verify(bundle: Path, store: Path, weights: Path, **how: Any) -> int:  # noqa: ANN401
    """Recompute every number of BUNDLE from its evidence and hold all it says against protocol, manifest and card.

    The verdict goes into a file beside it, from which the board takes its badge: claimed, recomputed, spot-checked, reproduced.
    Exit code: 0 it passed, 2 it did not.
    """
    from bench.submission import verdict

    faults, done, level = verdict.verify_bundle(bundle, store, _weights(weights), **how)
    return 2 if _told(bundle, faults, done, level) else 0


def _told(what: Path, faults: Sequence[str], good: Sequence[str], end: str) -> int:
    """Prints a judgement; 1 where there is a fault."""
    from results.escape import for_terminal

    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = [*(f"  {line}" for line in good), *(f"FAULT {line}" for line in faults)]
    _say("\n".join(map(for_terminal, [*lines, f"{what}: {count if faults else end}"])))
    return 1 if faults else 0


@cli.command()
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


def _weights(folder: Path) -> Path:
    if folder != DEFAULT_WEIGHTS and not folder.is_dir():
        raise BenchError(f"no folder {folder} (--weights or BENCH_WEIGHTS)")
    return folder


def _statuses(retry: str | None) -> list[str]:
    from pretrain_sources.yamlfile import suggestion
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


def _errors_of_use() -> tuple[type[Exception], ...]:
    """Looked up only once something went wrong, so that `bench --help` stays quick."""
    from pretrain_sources.catalog import UnknownSource
    from pretrain_sources.corpus import CorpusError
    from pretrain_sources.files import Changed
    from pretrain_sources.pool import PoolError
    from pretrain_sources.teachers import TeacherError
    from pretrain_sources.yamlfile import FileError
    from results.board_choice import UnanswerableError
    from results.bundle import BundleError
    from results.store import StoreError

    of_files = (FileError, BundleError, StoreError, CorpusError, PoolError, Changed)
    return BenchError, UnanswerableError, UnknownSource, TeacherError, *of_files


def _end_unread() -> None:
    """Ends as SIGPIPE does where nobody reads standard output any more: click would end with 1 and say nothing."""
    import os
    import select

    poll = select.poll()
    poll.register(1, select.POLLOUT)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left to be flushed
        sys.exit(141)


def _fail(message: str, code: int = 1) -> NoReturn:
    """Ends the process with a message, which may quote files, cards and bundles, on standard error."""
    from results.escape import lines_for_terminal

    click.echo(lines_for_terminal(message), err=True)
    sys.exit(code)


def main() -> None:
    """The `bench` command: errors of use become one message on standard error, never a traceback."""
    try:
        code = cli(standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):  # the first, because the others import what may just have been interrupted
        click.echo(STOPPED, err=True)
        sys.exit(3)
    except SystemExit:
        _end_unread()
        raise
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)  # the usage, which is ours, and what is wrong, which quotes
        usage, sign, why = said.getvalue().rstrip("\n").partition("Error: ")
        click.echo(f"{usage}{sign}", nl=False, err=True)
        _fail(why.expandtabs())
    except _errors_of_use() as error:
        _fail(f"bench: {error}")
    except StoppedEarly as error:
        _fail(f"{error}; what was finished is kept, and the same command goes on from there", 3)
    except OSError as error:  # a file that cannot be read; what cannot be written is most often a StoreError
        from results.store import cannot_write, is_unwritable

        if is_unwritable(error):
            _fail(f"bench: {cannot_write(Path(error.filename or 'output'), error)}")
        _fail(f"bench: {error.filename or 'input or output'}: {error.strerror or error}")
    except UnicodeEncodeError as error:  # bytes of the call or of a file's name that are no text
        _fail(f"bench: {error.object} is not UTF-8 text")
    sys.exit(code)
