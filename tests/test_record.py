from pathlib import Path

import pytest
from examples import evidence, record
from pydantic import ValidationError

from results import metrics
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


def test_older_records_stay_as_they_are_and_newer_scores_have_a_value_for_each_class() -> None:
    """Fields that are younger than the first records are left out where they say nothing."""
    older, newer = record(), record(scores=metrics.all_scores(evidence(0)))
    for name in ("class_precision", "class_recall", "class_area_ratio", "val_frames"):
        assert name not in older.model_dump_json()
    assert RunRecord.model_validate_json(newer.model_dump_json()) == newer
    assert older.scores is not None
    assert newer.scores is not None
    assert older.scores != newer.scores
    assert older.scores.agrees_with(newer.scores)
    assert newer.scores.agrees_with(older.scores)
    for name in ("class_iou", "class_area_ratio"):
        other = newer.scores.model_copy(update={name: [0.5] * 3})
        assert other.agrees_with(older.scores) == (name == "class_area_ratio")
        assert not other.agrees_with(newer.scores)
        with pytest.raises(ValidationError, match="one value per class"):
            record(scores=newer.scores.model_dump() | {name: [0.5]})


def test_columns_are_documented_and_the_page_is_current() -> None:
    assert all(column_docs().values())
    page = Path(__file__).parent.parent / "results" / "COLUMNS.md"
    assert page.read_text() == columns_markdown(), "run: python -m results.record > results/COLUMNS.md"
