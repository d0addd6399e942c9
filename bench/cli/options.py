"""Options shared by several commands, and printing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench import BenchError
from results.schedule_names import SCHEDULES

DEFAULT_WEIGHTS = Path("weights")
MOST_CHARACTERS = 4096  # of an option's value: the longest path
SEED = click.IntRange(0, 2**63 - 1)
JOBS = click.IntRange(1, 1024)
FOLDER = click.Path(path_type=Path)


def _invalid(text: str) -> str | None:
    """Why this text is not a valid value of any option, or None."""
    if not text:
        return "must not be empty"
    if len(text) > MOST_CHARACTERS:
        return f"has {len(text)} characters; at most {MOST_CHARACTERS} are allowed"
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return "contains unprintable characters"
    return None


class Command(click.Command):
    """A command that rejects empty, overlong and unprintable values."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Check every text, then parse as click does."""
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.get_params(ctx):
            value = given.get(str(param.name))
            for text in value if isinstance(value, list | tuple) else [value]:
                if isinstance(text, str) and (why := _invalid(text)):
                    raise click.BadParameter(why, ctx, param)
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group of such commands and groups."""

    command_class = Command
    group_class = type


class Share(click.FloatRange):
    """A number above 0 and up to 1."""

    def __init__(self) -> None:
        super().__init__(0, 1, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Convert to a number that is not NaN, which no range check rejects."""
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def folder_option(name: str, default: str | Path, text: str) -> Callable[..., Any]:
    """The option --NAME for a folder; its default can be set in BENCH_NAME."""
    kind = click.Path(path_type=Path)
    variable = f"BENCH_{name.upper()}"
    return click.option(f"--{name}", type=kind, envvar=variable, default=default, show_default=True, help=text)


STORE = folder_option("store", "bench-store", "Folder of results.")
DATA = folder_option("data", "data", "Folder of data, with one folder per target.")
METRIC = click.option("--metric", default="miou", show_default=True, help="Metric: miou or weighted_f.")
BACKBONE = click.option("--backbone", help="Only this backbone.")
BOARD = (
    click.option("--target", help="Board of this target, if the store has several."),
    click.option("--protocol", help="Board of this protocol, if the store has several."),
    click.option("--train-frac", type=Share(), help="Share of the target's labels that was used. Default: all."),
)
TEST_SPLIT = click.option(
    "--test", metavar="SPLIT", help="Scores on this further test split of the target, such as another place."
)
SCHEDULE = click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    help="Runs with the tuned schedule, or with the default one. Default: tuned.",
)
TRUSTED = click.option(
    "--backbone",
    "trusted",
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="A backbone whose code you have and trust: it is imported. May be repeated.",
)
WEIGHTS = folder_option("weights", DEFAULT_WEIGHTS, "Folder of downloaded weights.")


def say(text: object, err: bool = False) -> None:
    """Print text; control characters in it, other than line ends, are made visible."""
    from results.escape import visible

    click.echo("\n".join(map(visible, str(text).split("\n"))), err=err)


def with_(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Combine options into one decorator; help shows them in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def checked_weights(folder: Path) -> Path:
    """Return the folder.

    Raises:
        BenchError: it is not the default and does not exist.
    """
    if folder != DEFAULT_WEIGHTS and not folder.is_dir():
        raise BenchError(f"no folder {folder} (--weights or BENCH_WEIGHTS)")
    return folder


def importable(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, each of a backbone that can be imported, from the working directory too.

    Raises:
        BenchError: one cannot be.
    """
    from bench.plan.backbone_names import named_backbone
    from safe_io.user_code import search_in

    search_in([Path.cwd()] if names else [])
    for name in names:
        named_backbone(name, "--backbone: ")
    return names
