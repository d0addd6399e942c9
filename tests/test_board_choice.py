import pandas as pd
from examples import runs_table

from results.board_choice import one_board
from results.replicate_scores import samples


def test_newest_identity_is_chosen_and_others_are_noted() -> None:
    old = runs_table().assign(finished="2020-01-01T00:00:00+00:00", target_hash="o" * 64)
    runs = one_board(pd.concat([old, runs_table()]))
    assert set(runs["target_hash"]) == {"t" * 64}
    assert f"{len(old)} runs on other data, settings or versions" in samples(runs).notes[-1]
    failed = runs_table().iloc[:1].assign(finished="2099-01-01T00:00:00+00:00", target_hash="f" * 64, status="failed")
    assert set(one_board(pd.concat([runs_table(), failed]))["target_hash"]) == {"t" * 64}, (
        "runs without results hide nothing"
    )
