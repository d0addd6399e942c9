"""Blocks of documents that hold the output of commands.

A block begins with <!-- [[[cog show("bench table ...") ]]] --> and ends with <!-- [[[end]]] -->; cog replaces what is between
them with the command's output. `make published` writes the blocks, a test checks them.
"""

import shlex

import cog
from click.testing import CliRunner

from bench import BenchError
from bench.cli.app import cli


def show(call: str) -> None:
    """Write the output of a command into the document; fenced unless it is Markdown.

    Raises:
        BenchError: the command failed. Claims that are judged otherwise than expected are a result, not a failure.
    """
    words = shlex.split(call)[1:]
    result = CliRunner().invoke(cli, words, prog_name="bench", standalone_mode=False)
    judged = words[0] == "claim" and result.return_value in {2, 4, 5}
    if result.exception is not None or (result.return_value and not judged):
        raise BenchError(f"{call}: {result.exception or result.output}")
    fence = "" if "--format md" in call else "```\n"
    cog.out(f"`{call}`\n\n{fence}{result.stdout.strip()}\n{fence}")
