"""What a text tells of measurements, written by the commands that it names.

A block of such a text begins with <!-- [[[cog show("bench table ...") ]]] --> and ends with <!-- [[[end]]] -->; what stands between
the two cog writes, from what the command prints, so nothing there is typed by hand. `make published` writes, `make check` checks.
"""

import shlex

import cog
from click.testing import CliRunner

from bench import BenchError
from bench.cli.app import cli


def show(call: str) -> None:
    """Puts what a command prints into the text, as it is where it is Markdown.

    Raises:
        BenchError: it ends with another exit code than 0.
    """
    told = CliRunner().invoke(cli, shlex.split(call)[1:], prog_name="bench", standalone_mode=False)
    if told.exception is not None or told.return_value:
        raise BenchError(f"{call}: {told.exception or told.output}")
    fence = "" if "--format md" in call else "```\n"
    cog.out(f"`{call}`\n\n{fence}{told.stdout.strip()}\n{fence}")
