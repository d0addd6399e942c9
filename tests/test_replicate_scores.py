import numpy as np
import pytest
from examples import runs_table

from results.board_choice import UnanswerableError
from results.compare import all_pairs, compare
from results.replicate_scores import samples


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "diverged", "reason": "loss is nan"}, "1 diverged of 5: loss is nan"),
        ({"leak": "it has seen the test"}, "it has seen the test"),
    ],
)
def test_a_cell_that_is_not_whole_or_leaks_is_left_out_with_its_reason(change: dict[str, str], why: str) -> None:
    runs = runs_table()
    there = (runs["source"] == "satir") & ((runs["replicate"] == 0) | ("leak" in change))
    for name, value in change.items():
        runs.loc[there, name] = value
    found = samples(runs)
    assert "satir" not in found.scores
    assert why in found.left_out["satir", "tiny"]
    with pytest.raises(UnanswerableError, match=why):
        compare(found, "satir", "none")
    assert len(all_pairs(found)) == 3


def test_a_score_that_is_no_number_takes_its_cell_out_and_says_so() -> None:
    runs = runs_table()
    runs.loc[(runs["source"] == "satir") & (runs["backbone"] == "tiny") & (runs["replicate"] == 1), "miou"] = np.nan
    found = samples(runs)
    assert found.left_out["satir", "tiny"] == "one of its runs has no mIoU"
    assert compare(found, "satir", "none")["backbone"].tolist() == ["large"]
