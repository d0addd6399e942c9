"""Options that several commands share, and how a command prints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench import BenchError

DEFAULT_WEIGHTS = Path("weights")
MOST_CHARACTERS = 4096  # of an option's text: as many as a path may have
SEED = click.IntRange(0, 2**63 - 1)
JOBS = click.IntRange(1, 1024)
FOLDER = click.Path(path_type=Path)


def _wrong(text: str) -> str | None:
    """Why no option may be given this text, or None."""
    if not text:
        return "must not be empty"
    if len(text) > MOST_CHARACTERS:
        return f"has {len(text)} characters; at most {MOST_CHARACTERS}"
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return "holds characters that cannot be printed"
    return None


class Command(click.Command):
    """A command that takes no empty, endless or unprintable text in any option or argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, after a look at every text."""
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.get_params(ctx):
            value = given.get(str(param.name))
            for text in value if isinstance(value, list | tuple) else [value]:
                if isinstance(text, str) and (why := _wrong(text)):
                    raise click.BadParameter(why, ctx, param)
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group of such commands, and of groups like it."""

    command_class = Command
    group_class = type


class Share(click.FloatRange):
    """A number above 0 and up to 1."""

    def __init__(self) -> None:
        super().__init__(0, 1, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """The number, which must not be nan: no comparison refuses that."""
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def folder_option(name: str, default: str | Path, text: str) -> Callable[..., Any]:
    """The option --NAME for a folder, also read from BENCH_NAME."""
    kind = click.Path(path_type=Path)
    variable = f"BENCH_{name.upper()}"
    return click.option(f"--{name}", type=kind, envvar=variable, default=default, show_default=True, help=text)


STORE = folder_option("store", "bench-store", "Folder of results.")
DATA = folder_option("data", "data", "Folder that holds a folder for each target.")
METRIC = click.option("--metric", default="miou", show_default=True, help="miou or weighted_f.")
BACKBONE = click.option("--backbone", help="One backbone alone.")
BOARD = (
    click.option("--target", help="Of several boards, this target's."),
    click.option("--protocol", help="Of several boards, this protocol's."),
    click.option("--train-frac", type=Share(), help="Share of the target's labels. Default: all of them."),
)
WEIGHTS = folder_option("weights", DEFAULT_WEIGHTS, "Folder of weights you downloaded.")


def say(text: object, err: bool = False) -> None:
    """Prints lines; whatever a stranger's text in them holds, nothing but the end of a line reaches the terminal unseen."""
    from results.escape import visible

    click.echo("\n".join(map(visible, str(text).split("\n"))), err=err)


def with_(*options: Callable[..., Any]) -> Callable[..., Any]:
    """The options as one decorator, shown in the order given."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def checked_weights(folder: Path) -> Path:
    """The folder, which must be there where somebody named it.

    Raises:
        BenchError: it is not.
    """
    if folder != DEFAULT_WEIGHTS and not folder.is_dir():
        raise BenchError(f"no folder {folder} (--weights or BENCH_WEIGHTS)")
    return folder
