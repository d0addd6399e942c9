from pathlib import Path

import pytest
from examples import record
from pydantic import ValidationError

from results.record import RunRecord, column_docs, columns_markdown


def test_record_round_trip() -> None:
    assert RunRecord.model_validate_json(record().model_dump_json()) == record()


def test_nan_is_rejected() -> None:
    scores = record().scores
    assert scores is not None
    with pytest.raises(ValidationError, match="finite"):
        record(scores=scores.model_dump() | {"miou": float("nan")})


@pytest.mark.parametrize("lost", ["scores", "tuning", "provenance", "evidence_sha256"])
def test_ok_requires_all_parts(lost: str) -> None:
    with pytest.raises(ValidationError, match="status is ok"):
        record(**{lost: None})  # type: ignore[arg-type]


def test_failed_run_has_a_reason_and_no_scores() -> None:
    with pytest.raises(ValidationError, match="scores must be null"):
        record(status="diverged", scores=record().scores)
    with pytest.raises(ValidationError, match="a reason must be given"):
        record(status="diverged", reason=None)


def test_columns_are_documented_and_the_page_is_current() -> None:
    assert all(column_docs().values())
    page = Path(__file__).parent.parent / "results" / "COLUMNS.md"
    assert page.read_text() == columns_markdown(), "run: python -m results.record > results/COLUMNS.md"
