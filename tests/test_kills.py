import random
from pathlib import Path

from kills import command, interrupted, killed_often, matrix

from bench import STOPPED


def test_a_run_that_is_killed_five_times_ends_in_the_same_table(scenes: Path, tmp_path: Path) -> None:
    moments: list[float] = []
    for part in range(5):  # a run that was quick enough to finish is begun anew
        if len(moments) < 5:
            moments += killed_often(5 - len(moments), tmp_path / str(part), scenes)
    assert len(moments) == 5, moments


def test_ctrl_c_in_the_first_seconds_is_one_line_and_leaves_no_process(scenes: Path, tmp_path: Path) -> None:
    """While it imports, plans, starts the server of its workers, while that imports torch, and at the first units."""
    dice, path = random.Random(7), matrix(tmp_path)
    for number in range(12):
        at = dice.uniform(0.2, 3.0) if number % 3 else dice.uniform(0.2, 0.8)
        code, text, alive = interrupted(command(path, tmp_path / str(number), scenes, "--jobs", "2"), at)
        assert (code, alive) == (3, []), f"{at:.2f} s: {text}"
        assert text.endswith(f"{STOPPED}\n"), f"{at:.2f} s: {text}"
        assert "Traceback" not in text, f"{at:.2f} s: {text}"
