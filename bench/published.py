"""What a text tells of measurements, written by the commands that it names: `python -m bench.published README.md ...`.

A block of such a text begins with <!-- $ bench table --store ... --> and ends with <!-- end -->; between the two stands what
the command prints, as it is where it is Markdown, so nothing there is typed by hand, and a test sees whether it still holds.
"""

import re
import shlex
import sys
from pathlib import Path

from click.testing import CliRunner

from bench import BenchError
from bench.cli import cli

BLOCK = re.compile(r"(?P<head><!-- \$ bench (?P<call>.+?) -->\n).*?(?P<tail><!-- end -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """The text with what its commands print now, from the folder that it is called in.

    Raises:
        BenchError: a command ends with another exit code than 0.
    """

    def block(found: re.Match[str]) -> str:
        told = CliRunner().invoke(cli, shlex.split(found["call"]), prog_name="bench", standalone_mode=False)
        if told.exception is not None or told.return_value:
            raise BenchError(f"bench {found['call']}: {told.exception or told.output}")
        fence = "" if found["call"].endswith("--format md") else "```\n"
        return f"{found['head']}{fence}{told.stdout.strip()}\n{fence}{found['tail']}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(refreshed(path.read_text()))
