"""What a text tells of measurements, written by the commands that it names: `python -m bench.cli.published README.md ...`.

A block of such a text begins with <!-- $ bench table --store ... --> and ends with <!-- end -->; between the two stands what
the command prints, as it is where it is Markdown, so nothing there is typed by hand, and a test sees whether it still holds.
"""

import re
import shlex
import sys
from pathlib import Path

from click.testing import CliRunner

from bench import BenchError
from bench.cli.app import cli

HEAD, END = "<!-- $ ", "<!-- end -->"
BLOCK = re.compile(rf"<!-- \$ bench (?P<call>[^\n]+?) -->\n.*?{END}", re.DOTALL)


def refreshed(text: str) -> str:
    """The text with what its commands print now, from the folder that it is called in.

    Raises:
        BenchError: a command ends with another exit code than 0; a block has no end, or there is none.
    """

    def block(found: re.Match[str]) -> str:
        told = CliRunner().invoke(cli, shlex.split(found["call"]), prog_name="bench", standalone_mode=False)
        if told.exception is not None or told.return_value:
            raise BenchError(f"bench {found['call']}: {told.exception or told.output}")
        fence = "" if "--format md" in found["call"] else "```\n"
        shown = f"`bench {found['call']}`\n\n{fence}{told.stdout.strip()}\n{fence}"
        return f"{HEAD}bench {found['call']} -->\n{shown}{END}"

    count = len(BLOCK.findall(text))
    if not count or count != text.count(HEAD):
        raise BenchError(f"{count} blocks from {HEAD}... to {END}, and {text.count(HEAD)} begin")
    return BLOCK.sub(block, text)


if __name__ == "__main__":
    paths = [Path(word) for word in sys.argv[1:]]
    for path, text in [(path, refreshed(path.read_text())) for path in paths]:  # all of them, or none is written
        path.write_text(text)
