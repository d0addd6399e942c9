"""Shipped results match their evidence, and the text about them matches the output of the commands."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.plan.matrix import load_matrix
from bench.submission import verify
from pretrain_sources.config_file import read_yaml_list
from results import metrics
from results.bundle import read_verdict, submissions
from results.claims import Expected, judge_entry, parse, sentence
from results.evidence import sha256
from results.evidence_files import read_evidence
from results.record_files import read_records
from results.store import Store
from results.table import runs_frame

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- \[\[\[cog show.*?\[\[\[end\]\]\] -->", re.DOTALL)
CLAIMS = read_yaml_list(ROOT / "results" / "answers.yaml", Expected)
assert CLAIMS


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(ROOT / "results" / "runs", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def table(shipped: Store) -> pd.DataFrame:
    return runs_frame(shipped)


def test_scores_match_the_evidence(shipped: Store) -> None:
    records, unreadable = read_records(shipped)
    assert not unreadable
    measured = [record for record in records if record.status == "ok"]
    assert measured
    for record in measured:
        evidence = read_evidence(shipped, record)
        assert sha256((shipped.folder_of(record) / "evidence.npz").read_bytes()) == record.evidence_sha256
        assert record.scores is not None
        newer = record.scores.class_precision is not None  # older records have fewer scores
        assert (metrics.all_scores if newer else metrics.scores)(evidence) == record.scores
        for name, one in (record.further or {}).items():
            assert metrics.all_scores(read_evidence(shipped, record, name)) == one.scores


def test_submissions_pass_and_verdicts_match(shipped: Store) -> None:
    bundles, left_out = submissions(shipped.root)
    assert not left_out
    for one in bundles:
        assert verify.judge(one.folder, others=shipped.root).faults == []
        verdict = read_verdict(one.folder)
        assert verdict is None or verdict.level == one.level, "the verdict belongs to another bundle"


@pytest.mark.parametrize("entry", CLAIMS, ids=lambda entry: entry.claim)
def test_every_claim_is_judged_as_expected(entry: Expected, table: pd.DataFrame) -> None:
    judgement = judge_entry(entry, table)
    assert judgement.verdict.lower() == entry.expect, sentence(judgement)


def test_blocks_match_the_output_of_the_commands() -> None:
    result = cog("--check", "README.md", "bench/README.md", "results/RESULTS.md", "results/CLAIMS.md")
    assert result.returncode == 0, f"make published: {result.stdout}{result.stderr}"


def cog(*words: str) -> subprocess.CompletedProcess[str]:
    prologue = "from bench.cli.published import show; from bench.cli.reference import reference"
    call = [sys.executable, "-m", "cogapp", "-p", prologue, *words]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)


def test_no_score_outside_of_generated_blocks() -> None:
    for name in ("README.md", "results/RESULTS.md", "results/CLAIMS.md"):
        section = (ROOT / name).read_text()
        section = section.partition("## Measured so far")[2].partition("\n## ")[0] if name == "README.md" else section
        assert BLOCK.search(section), name
        typed = BLOCK.sub("", section)
        assert not re.search(r"(?<![\w.])[01]?\.[0-9]{2,}|SUPPORTED|NOT SHOWN|CONTRADICTED|\bpoints", typed), name


def test_block_is_replaced_unless_the_command_fails(tmp_path: Path) -> None:
    def update(call: str) -> tuple[int, str]:
        text = tmp_path / "text.md"
        text.write_text(f'a\n<!-- [[[cog show("{call}") ]]] -->\nold\n<!-- [[[end]]] -->\nb\n')
        result = cog("-r", str(text))
        return result.returncode, text.read_text() + result.stderr

    for call, why in (("bench table --store nowhere", "nowhere"), ("bench ls --file x", "No such option")):
        code, output = update(call)
        assert code != 0
        assert why in output
        assert "\nold\n" in output, "the block is unchanged"
    (tmp_path / "claims.yaml").write_text("[{claim: imagenet > none, expect: contradicted, target: buffalo-udder}]")
    code, output = update(f"bench claim --file {tmp_path}/claims.yaml --store results/runs")
    assert (code, "NOT AS EXPECTED" in output) == (0, True), "a claim that was not as expected is shown"
    code, output = update("bench --version")
    assert code == 0
    begin = 'a\n<!-- [[[cog show("bench --version") ]]] -->\n`bench --version`\n\n```\nbench, version'
    assert output.startswith(begin)
    assert output.endswith("\n```\n<!-- [[[end]]] -->\nb\n")


def test_records_have_no_local_paths() -> None:
    paths = [path for path in (ROOT / "results" / "runs").rglob("*.*") if path.suffix in (".json", ".jsonl", ".csv")]
    assert paths
    for path in paths:
        assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|mnt)/", path.read_text()), path


@pytest.mark.parametrize("name", ["claims-udder.yaml", "claims-hit-uav.yaml"])
def test_claims_written_before_their_runs_can_be_judged(name: str) -> None:
    """Each names sources, backbone and board of the matrix that answers it."""
    entries = read_yaml_list(ROOT / "results" / name, Expected)
    matrix = load_matrix(name.removeprefix("claims-").removesuffix(".yaml"))
    sources = {cell.source for cell in matrix.cells}
    for entry in entries:
        claim = parse(entry.claim)
        assert {claim.a, claim.b} <= sources
        assert claim.backbone in (None, *matrix.backbones)
        assert (entry.target, entry.protocol) == (matrix.target, matrix.protocol.name)
        assert entry.test in (None, *matrix.target_card.further)
