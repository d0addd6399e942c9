import random
from pathlib import Path

import pandas as pd
import pytest
from conftest import Bench
from kills import command, finished, interrupted, killed_at, killed_often, matrix, table

from bench import STOPPED


def test_a_killed_run_resumes_to_the_same_table(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    """Killed after the first of its twelve units, and again after the sixth."""
    path, broken, whole = matrix(tmp_path), tmp_path / "broken", tmp_path / "whole"
    before: dict[Path, int] = {}
    for done in (1, 6):
        killed_at(command(path, broken, scenes, "--jobs", "2"), lambda: len(finished(broken)) >= done)  # noqa: B023 - called at once
        assert done <= len(finished(broken)) < 12, "it was killed in the middle"
        assert before.items() <= finished(broken).items(), "a finished unit was repeated"
        before = finished(broken)
    for store in (broken, whole):
        assert bench("run", "--matrix", path, "--executor", "inline", "--store", store).code == 0
    assert before.items() <= finished(broken).items(), "a finished unit was repeated"
    pd.testing.assert_frame_equal(table(broken), table(whole))


@pytest.mark.stress
def test_a_run_killed_five_times_resumes_to_the_same_table(scenes: Path, tmp_path: Path) -> None:
    """Killed at random moments."""
    moments: list[float] = []
    for part in range(5):  # start again if the run finished first
        if len(moments) < 5:
            moments += killed_often(5 - len(moments), tmp_path / str(part), scenes)
    assert len(moments) == 5, moments


@pytest.mark.parametrize("times", [5, pytest.param(30, marks=pytest.mark.stress)])
def test_ctrl_c_in_the_first_seconds_is_one_line_and_leaves_no_process(
    times: int, scenes: Path, tmp_path: Path
) -> None:
    """During imports, planning, the start of the fork server, its import of torch, and the first units."""
    dice, path = random.Random(7), matrix(tmp_path)
    for number in range(times):
        at = dice.uniform(0.2, 3.0) if number % 3 else dice.uniform(0.2, 0.8)
        code, text, alive = interrupted(command(path, tmp_path / str(number), scenes, "--jobs", "2"), at)
        assert (code, alive) == (3, []), f"{at:.2f} s: {text}"
        assert text.endswith(f"{STOPPED}\n"), f"{at:.2f} s: {text}"
        assert "Traceback" not in text, f"{at:.2f} s: {text}"
