"""The time that `bench plan` expects."""

import json
from pathlib import Path

import pytest

from bench.cli import plan_report
from bench.plan.unit_folder import SPENT
from results.store import Store


def test_units_without_steps_do_not_count_for_the_time_per_step(tmp_path: Path) -> None:
    """ImageNet weights are a pretraining that takes seconds and trains nothing."""
    for name, seconds, work in (("a", 2.65, 0), ("b", 300, 3000), ("c", 500, 3000)):
        folder = tmp_path / "units" / "pretrain" / name
        folder.mkdir(parents=True)
        spent = {"seconds": seconds, "work": work, "by": "x", "protocol": "p", "device": "d"}
        (folder / SPENT).write_text(json.dumps(spent))
    (tmp_path / "units" / "pretrain" / "b" / "torn").write_text("")
    (folder.with_name("torn")).mkdir()
    (folder.with_name("torn") / SPENT).write_text("{")
    rates = plan_report._rates(Store(tmp_path))
    assert rates == {("pretrain", "x", "p"): {"d": pytest.approx(800 / 6000)}}
