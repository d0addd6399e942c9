"""The documents: short, without dead links, with commands that exist, and nothing said twice."""

import re
import shlex
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from bench.cli.app import cli
from bench.cli.reference import contexts
from bench.plan.matrix import load_matrix

ROOT = Path(__file__).parents[1]
FOLDERS = ("bench", "backbones", "pretrain_sources", "results", "dashboard")
PAPERS = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")))
    if not {"runs", "submissions"} & set(path.relative_to(ROOT).parts)
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COG = re.compile(r"<!-- \[\[\[cog .*?\[\[\[end\]\]\] -->", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MOST_README_BYTES, MOST_RESULTS_BYTES = 6144, 8192
LONG = 80  # characters of a sentence that no two papers share


def text_of(paper: Path) -> str:
    return (ROOT / paper).read_text()


def prose_of(paper: Path) -> str:
    return FENCE.sub("", COG.sub("", text_of(paper)))


def anchors_of(paper: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(paper)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks_of(paper: Path) -> list[str]:
    return [body for language, body in FENCE.findall(text_of(paper)) if language == "sh"]


def calls_of(block: str) -> Iterator[list[str]]:
    """The words after `bench` of each call in a block of shell commands."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["python"] and words[1:3] == ["-m", "bench"]:
            words = words[2:]
        if words and words[0].rpartition("/")[2] == "bench":
            yield words[1:]


def parse(words: list[str], *, complete: bool = True) -> None:
    """Parse a call and run nothing. complete: arguments must be there and fit, except for files that do not exist here.

    Raises:
        click.UsageError: the command or an option does not exist, or a value does not fit.
    """
    ctx, rest = click.Context(cli, info_name="bench"), words
    while isinstance(ctx.command, click.Group):
        if not rest or rest[0].startswith("-"):
            ctx.command.make_parser(ctx).parse_args(args=list(rest))
            return
        name, command, rest = ctx.command.resolve_command(ctx, rest)
        assert command is not None
        ctx = click.Context(command, ctx, info_name=name, resilient_parsing=not complete)
    try:
        ctx.command.parse_args(ctx, list(rest))
    except click.BadParameter as error:
        if "does not exist" not in error.message:
            raise


def test_what_is_read_first_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= MOST_README_BYTES
    assert len((ROOT / "results/RESULTS.md").read_bytes()) <= MOST_RESULTS_BYTES


@pytest.mark.parametrize("paper", PAPERS, ids=str)
def test_every_link_leads_to_a_file_and_a_heading(paper: Path) -> None:
    for link in LINK.findall(prose_of(paper)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        there = (ROOT / paper.parent / name).resolve() if name else ROOT / paper
        assert there.is_relative_to(ROOT), link
        assert there.is_file(), link
        assert not anchor or anchor in anchors_of(there.relative_to(ROOT)), link


def test_the_readme_leads_to_every_readme() -> None:
    leads = LINK.findall(prose_of(Path("README.md")))
    assert {str(paper) for paper in PAPERS if paper.name == "README.md"} - {"README.md"} <= set(leads)


@pytest.mark.parametrize("paper", PAPERS, ids=str)
def test_every_call_in_a_block_can_be_made(paper: Path) -> None:
    for call in [call for block in blocks_of(paper) for call in calls_of(block)]:
        parse(call)


@pytest.mark.parametrize("paper", PAPERS, ids=str)
def test_every_command_named_in_a_line_exists(paper: Path) -> None:
    for code in re.findall(r"`([^`]+)`", prose_of(paper)):
        for call in calls_of(code):
            if not {"COMMAND", "..."} & set(call):
                parse(call, complete=False)


@pytest.mark.parametrize("target", ["scenes", "hit-uav"])
def test_the_commands_after_the_demo_can_be_made(
    target: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their run is of the demo's matrix, and their folder holds images."""
    (tmp_path / target).symlink_to(scenes / "scenes")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    printed = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    [call] = re.findall(r"bench (predict .*)\"$", printed, re.MULTILINE)
    (word, run, folder, *_), source = shlex.split(call.replace("\\", "")), load_matrix("demo").cells[2]
    assert (word, run) == ("predict", f"{source.source} x {source.backbone} r0")
    assert any(Path(folder).glob("*.jpg"))
    assert Path(folder).parent == tmp_path / target


def test_calls_are_found_and_wrong_ones_refused() -> None:
    assert sum(len(list(calls_of(block))) for paper in PAPERS for block in blocks_of(paper)) > 25
    assert list(calls_of("a\n.venv/bin/bench ls  # what\nbench run \\\n  --matrix 'a b'\n")) == [
        ["ls"],
        ["run", "--matrix", "a b"],
    ]
    parse(["--version"])
    for wrong in (["no-such"], ["run"], ["run", "--matrix", "soda", "--no-such"], ["--no-such"], ["data", "make", "x"]):
        with pytest.raises(click.UsageError):
            parse(wrong)


def test_the_reference_has_every_command_and_option() -> None:
    text = text_of(Path("bench/README.md"))
    for ctx in contexts():
        _, heading, rest = text.partition(f"## {ctx.command_path}\n")
        assert heading, ctx.command_path
        section = rest.partition("\n##")[0]
        for option in ctx.command.params:
            if isinstance(option, click.Option):
                assert f"- `{option.opts[0]} " in section.replace("` ", " "), (ctx.command_path, option.opts)


def test_no_sentence_is_in_two_papers() -> None:
    papers = defaultdict(set)
    for paper in PAPERS:
        for paragraph in re.split(r"\n\s*\n|\n(?=\s*[-|#]|\s*\d+\. )", prose_of(paper)):
            for sentence in re.split(r"(?<=[.:;?!]) ", " ".join(paragraph.split())):
                papers[sentence.strip("-|#* ")].add(str(paper))
    assert {text: names for text, names in papers.items() if len(text) > LONG and len(names) > 1} == {}


def test_the_citation_has_its_fields_and_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "version", "license", "type", "references"}
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert all({"name", "family-names"} & set(author) for author in citation["authors"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert "2304.07969" in str(citation["references"])


def test_a_version_is_released_in_the_changelog_and_the_citation_or_in_neither() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    heading = re.search(
        rf"^## \[{re.escape(citation['version'])}\] - (.+)$", text_of(Path("CHANGELOG.md")), re.MULTILINE
    )
    assert heading, "the changelog has this version"
    assert str(citation.get("date-released", "Unreleased")) == heading[1]
