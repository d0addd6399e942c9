"""The reference of the command line in bench/README.md, written from the commands themselves.

A block of that page begins with <!-- [[[cog reference() ]]] --> and ends with <!-- [[[end]]] -->; `make published` fills it.
"""

import inspect
from collections.abc import Iterator

import click

from bench.cli.app import cli


def reference() -> None:
    """Write every command into the page: usage, help and options with their defaults."""
    import cog  # exists only while cog runs

    cog.out("\n" + "\n\n".join(map(_section, contexts())) + "\n\n")


def contexts(group: click.Group = cli, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Yield a context for `group` and each command below it, in the order of `bench --help`."""
    ctx = click.Context(group, parent, info_name=group.name if parent else "bench", show_default=True)
    yield ctx
    for name in group.list_commands(ctx):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from contexts(command, ctx)
        else:
            yield click.Context(command, ctx, info_name=name)


def _section(ctx: click.Context) -> str:
    usage = " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])
    heading = "####" if ctx.command_path.count(" ") > 1 else "###"
    paragraphs = inspect.cleandoc(ctx.command.help or "").split("\n\n")
    options = [_option(option, ctx) for option in ctx.command.params if isinstance(option, click.Option)]
    parts = [f"{heading} {ctx.command_path}", f"`{usage}`", *(" ".join(text.split()) for text in paragraphs)]
    return "\n\n".join([*parts, "\n".join(options)] if options else parts)


def _option(option: click.Option, ctx: click.Context) -> str:
    """Return one line of a list: names and value in code, then help, default and environment variable."""
    names, text = option.get_help_record(ctx) or ("", "")
    variable = f" Environment: `{option.envvar}`." if option.envvar else ""
    return f"- `{names}` {' '.join(text.split())}{variable}"
