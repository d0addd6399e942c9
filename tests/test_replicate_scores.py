import numpy as np
import pytest
from examples import runs_table

from results.board_choice import UnanswerableError
from results.compare import compare
from results.replicate_scores import Samples, samples
from results.uncertainty import all_pairs


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "diverged", "reason": "loss is nan"}, "1 diverged of 5: loss is nan"),
        ({"leak": "it has seen the test"}, "it has seen the test"),
    ],
)
def test_partial_or_leaking_cell_is_left_out_with_reason(change: dict[str, str], why: str) -> None:
    runs = runs_table()
    there = (runs["source"] == "satir") & ((runs["replicate"] == 0) | ("leak" in change))
    for name, value in change.items():
        runs.loc[there, name] = value
    data = samples(runs)
    assert "satir" not in data.scores
    assert why in data.left_out["satir", "tiny"]
    with pytest.raises(UnanswerableError, match=why):
        compare(data, "satir", "none")
    assert len(all_pairs(data)) == 3


def test_cell_with_missing_score_is_left_out() -> None:
    runs = runs_table()
    runs.loc[(runs["source"] == "satir") & (runs["backbone"] == "tiny") & (runs["replicate"] == 1), "miou"] = np.nan
    data = samples(runs)
    assert data.left_out["satir", "tiny"] == "a run has no mIoU"
    assert compare(data, "satir", "none")["backbone"].tolist() == ["large"]


def test_what_is_left_out_is_said_once_for_each_reason() -> None:
    left = {("a", "tiny"): "no weights", ("b", "tiny"): "no weights", ("a", "large"): "failed"}
    data = Samples({}, left)
    assert data.left_out_notes() == ["left out, a x tiny, b x tiny: no weights", "left out, a x large: failed"]
    assert data.left_out_notes("b", "c") == ["left out, b x tiny: no weights"]
