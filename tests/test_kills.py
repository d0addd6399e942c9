from pathlib import Path

from kills import killed_often


def test_a_run_that_is_killed_five_times_ends_in_the_same_table(scenes: Path, tmp_path: Path) -> None:
    moments: list[float] = []
    for part in range(5):  # a run that was quick enough to finish is begun anew
        if len(moments) < 5:
            moments += killed_often(5 - len(moments), tmp_path / str(part), scenes)
    assert len(moments) == 5, moments
