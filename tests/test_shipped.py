"""What ships as measured is what its evidence says, and what is written about it is what the records say."""

import re
from pathlib import Path

import pandas as pd
import pytest

from bench.submission import verify
from results import metrics
from results.bundle import read_verdict, submissions
from results.claims import Expected, judge_entry, read_claims, sentence
from results.evidence import sha256
from results.store import Store
from results.table import runs_frame

ROOT = Path(__file__).parents[1]
CLAIMS = read_claims(ROOT / "results" / "claims.yaml")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(ROOT / "results" / "runs", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def table(shipped: Store) -> pd.DataFrame:
    return runs_frame(shipped)


def test_every_score_is_recomputed_from_its_evidence(shipped: Store) -> None:
    records, unreadable = shipped.read_records()
    assert not unreadable
    measured = [record for record in records if record.status == "ok"]
    assert measured
    for record in measured:
        evidence = shipped.read_evidence(record)
        assert sha256((shipped.folder_of(record) / "evidence.npz").read_bytes()) == record.evidence_sha256
        assert metrics.scores(evidence) == record.scores


def test_every_submission_passes_and_no_verdict_says_more_than_somebody_has_seen(shipped: Store) -> None:
    found, left_out = submissions(shipped.root)
    assert not left_out
    for one in found:
        assert verify.judge(one.folder, others=shipped.root).faults == []
        told = read_verdict(one.folder)
        assert told is None or told.level == one.level, "a verdict on another bundle"


@pytest.mark.parametrize("entry", CLAIMS, ids=lambda entry: entry.claim)
def test_every_claim_is_judged_as_expected(entry: Expected, table: pd.DataFrame) -> None:
    told = judge_entry(entry, table)
    assert told.verdict.lower() == entry.expect, sentence(told)


def test_every_sentence_about_results_has_a_claim_and_every_claim_its_sentence() -> None:
    text = (ROOT / "README.md").read_text()
    judged = re.search(r"judged by results/claims.yaml -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert judged is not None
    sentences = re.findall(r"^- (.+?)(?=^- |\Z)", judged[1].strip(), re.DOTALL | re.MULTILINE)
    assert sorted(" ".join(line.split()) for line in sentences) == sorted(str(entry.says) for entry in CLAIMS)


def test_no_path_of_the_machine_that_measured_is_in_a_record() -> None:
    for path in (ROOT / "results" / "runs").rglob("*.json"):
        assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|mnt)/", path.read_text()), path
