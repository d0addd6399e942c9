"""`bench plan --probe`: a forecast from a small copy of the matrix."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Bench, protocol_fields, write_matrix

from backbones.registry import BACKBONES
from bench.plan.plan import Plan
from bench.plan.units import FinalUnit, TuneUnit
from bench.run import probe
from bench.run.probe import Pace, _forecast, _Timed
from bench.spec import Cell, Protocol
from bench.targets import find_target, open_target
from pretrain_sources.catalog import catalog


def test_every_stage_is_timed_and_the_store_is_not_touched(bench: Bench, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, ("none", "satir/felzenszwalb", "pool/simmim/patch-16"), replicates=3, trials=2)
    done = bench("plan", "--matrix", path, "--probe", "--jobs", 1)
    assert done.code == 0, done.err
    assert not (tmp_path / "store").exists()
    lines = done.out.splitlines()
    assert "  timing a few steps of 9 units" in lines, "a corpus, two pretrainings, three tunings, three finals"
    at = next(i for i, line in enumerate(lines) if line.startswith("forecast, measured in "))
    assert lines[at].endswith(" with 1 worker:")
    counts = [line.split(" units: ")[0].split() for line in lines[at + 1 : at + 5]]
    assert counts == [["corpus", "1"], ["pretrain", "6"], ["tune", "3"], ["final", "9"]]
    assert "on Slurm: 19 jobs of " in lines[at + 6]
    assert "not counted" not in done.out
    assert bench("run", "--matrix", path, "--executor", "inline").code == 0
    again = bench("plan", "--matrix", path, "--probe")
    assert again.out.splitlines()[-1] == "forecast: nothing is left to do"


@pytest.mark.parametrize(("places", "steps"), [([None, None], probe.STEPS_CPU), ([0, 1, 0], probe.STEPS_GPU)])
@pytest.mark.parametrize("passes", [None, 3.0])
def test_the_small_copy_has_the_real_steps_and_few_of_them(
    places: list[int | None], steps: int, passes: float | None
) -> None:
    pretraining = {"pretrain_epochs": passes, "pretrain_steps": None} if passes else {}
    real = Protocol.model_validate(protocol_fields(trials=5, tune_replicates=2, replicates=7, **pretraining))
    small = probe._little(real, places)
    assert (small.trials, small.tune_replicates, small.replicates) == (1, 1, len(places)), "a replicate for each worker"
    assert (small.finetune_steps, small.steps_on(probe.FRAMES), small.max_frames) == (steps, steps, probe.FRAMES)
    assert (small.crop_px, small.batch, small.ranked) == (real.crop_px, real.batch, False)


def test_options_of_the_probe_need_it(bench: Bench, tmp_path: Path) -> None:
    refused = bench("plan", "--matrix", write_matrix(tmp_path), "--jobs", 2)
    assert (refused.code, refused.err) == (1, "bench: --jobs and --gpus of bench plan are for --probe\n")


@pytest.fixture
def tuned(scenes: Path) -> TuneUnit:
    """The tuning of a cell with 40 steps."""
    protocol = Protocol.model_validate(
        protocol_fields(finetune_steps=40, trials=3, tune_replicates=2, max_frames=10, replicates=2)
    )
    card = catalog()["none"]
    return TuneUnit(
        Cell(target="scenes", protocol="test-v1", source="none", backbone="tiny"),
        card,
        BACKBONES["tiny"],
        protocol,
        "0" * 64,
        None,
    )


def test_a_forecast_adds_up_steps_frames_and_points(tuned: TuneUnit, scenes: Path) -> None:
    target = open_target(find_target("scenes"), scenes, None)
    final = FinalUnit(tuned.cell, tuned.card, tuned.backbone, tuned.protocol, "0" * 64, None, tuned, 0)
    plan = Plan((final,), (tuned, final, replace(final, replicate=1)), ())
    paces: dict[probe.Key, Pace] = {("tune", "tiny"): Pace(2.0, 0.5, 3.0), ("final", "tiny"): Pace(2.0, 1.0, 4.0)}
    made = _forecast(plan, target, paces, 2, 1.0)
    further = sum(min(10, len(target.splits[split])) for split in target.further)
    assert made.seconds["tune"] == 3 + 6 * (40 * 2 + 10 * 0.5)
    assert made.seconds["final"] == 2 * (4 + 40 * 2 + 10 * 2 * 1.0 + (10 + further) * 1.0), (
        "two frames at each of ten points"
    )
    assert made.longest == made.seconds["tune"]
    assert made.unknown == {}
    unknown = _forecast(plan, target, {}, 2, 1.0)
    assert (unknown.seconds, unknown.unknown) == ({}, {"tune": 1, "final": 2})


def test_the_pace_leaves_out_what_comes_before_the_first_step(tuned: TuneUnit) -> None:
    little = replace(tuned, protocol=tuned.protocol.model_copy(update={"finetune_steps": 4}))
    times = [10.0, 11.0, 12.0, 13.0, 13.5, 14.0, 14.5]  # four steps, of which the first warms up, and three frames
    timed = _Timed(little, 0.0, list(enumerate(times, start=1)))
    assert probe._pace(timed, 16.0) == Pace(1.0, 0.5, 16.0 - 3 * 1.0 - 3 * 0.5)


def test_a_gpu_reports_only_now_and_then(tuned: TuneUnit) -> None:
    timed = _Timed(tuned, 2.0, [(40, 12.0), (41, 12.25)])
    assert timed.slope(1, 40) == 10 / 40
    assert timed.slope(41, 50) == 0.25
    assert timed.slope(60, 70) is None
