"""The gain of tuning, its noise, and what chance alone gives."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Bench
from examples import cell, record, store_of
from pydantic import ValidationError

from results import load_table, stats
from results.board import board
from results.record import RunRecord
from results.schedule_names import DEFAULT
from results.tuning_gain import Gain, by_chance, gain_notes, gain_of, gain_text, proposals, standard_error

SCHEDULE = {"lr": 1e-3, "decay": "poly"}
TRAININGS: list[list[float | None]] = [[0.30, 0.32], [0.31, 0.37], [0.20, None]]


def tuning(trainings: list[list[float | None]] | None, **changes: Any) -> dict[str, Any]:
    """The tuning of a record, with the best trial chosen."""
    means = [None if None in each else float(np.mean([v for v in each if v is not None])) for each in trainings or []]
    fields: dict[str, Any] = {
        "schedule": SCHEDULE,
        "trials": len(means),
        "default_val_miou": means[0] if means else None,
        "tuned_val_miou": max((mean for mean in means if mean is not None), default=None),
        "trial_val_mious": means,
        "training_val_mious": trainings,
    }
    return fields | changes


def row(trainings: list[list[float | None]] | None, **changes: Any) -> dict[str, Any]:
    fields = tuning(trainings, **changes)
    lists = fields["training_val_mious"]
    return fields | {"training_val_mious": None if lists is None else json.dumps(lists)}


def test_the_standard_error_is_from_the_pooled_variance() -> None:
    one, other = np.var([0.30, 0.32], ddof=1), np.var([0.31, 0.37], ddof=1)
    pooled = math.sqrt((one + other) / 2)
    assert standard_error(TRAININGS) == pytest.approx(pooled * math.sqrt(2 / 2))
    gain = gain_of(row(TRAININGS))
    assert gain.value == pytest.approx(0.03)
    assert gain.standard_error == standard_error(TRAININGS)
    assert gain.trainings == 2
    three = [[0.1, 0.2, 0.3], [0.2, 0.2, 0.5]]
    squares = 0.02 + 0.06
    assert standard_error(three) == pytest.approx(math.sqrt(squares / 4 * 2 / 3))


@pytest.mark.parametrize("trainings", [[[0.1], [0.2]], [[0.1, None], [None]], []])
def test_no_standard_error_without_two_trainings(trainings: list[list[float | None]]) -> None:
    assert standard_error(trainings) is None


def test_the_standard_error_is_that_of_simulated_gains() -> None:
    """Of the gain of a fixed trial over trial 0, which selection would add to."""
    rng, spread, trainings = np.random.default_rng(0), 0.01, 3
    drawn = rng.normal(0.5, spread, (4000, 3, trainings))
    gains = drawn[:, 1].mean(1) - drawn[:, 0].mean(1)
    errors = [standard_error(study.tolist()) for study in drawn[:400]]
    assert np.sqrt(np.mean(np.square(np.array(errors, float)))) == pytest.approx(gains.std(), rel=0.05)


def test_the_best_of_equal_candidates_is_ahead_as_simulated() -> None:
    rng = np.random.default_rng(0)
    for trials in (2, 3, 8, 16):
        drawn = rng.normal(size=(40_000, trials))
        gains = drawn.max(1) - drawn[:, 0]
        assert by_chance(trials) == pytest.approx(gains.mean() / math.sqrt(2), abs=0.01)
    assert by_chance(1) == pytest.approx(0)


def test_the_expected_maximum_has_its_known_values() -> None:
    assert stats.expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-9)
    assert stats.expected_maximum(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-9)
    assert stats.expected_maximum(10) == pytest.approx(1.53875273, abs=1e-7)  # Tippett's table


@pytest.mark.parametrize(
    ("trials", "gain", "error", "text"),
    [
        (3, 0.012, 0.0092, "+0.0120 (1.3 SE)"),
        (3, 0.012, None, "+0.0120 (SE unknown)"),
        (3, 0.012, math.nan, "+0.0120 (SE unknown)"),
        (3, 0.012, 0.0, "+0.0120 (SE 0)"),
        (3, 0.0, 0.01, "0 (trial 0 won)"),
        (3, None, 0.01, "trial 0 diverged"),
        (1, 0.0, None, "-"),
        (0, None, None, "-"),
        (None, None, None, "-"),
    ],
)
def test_gains_as_text(trials: float | None, gain: float | None, error: float | None, text: str) -> None:
    assert gain_text(trials, gain, error) == text


def test_what_proposes_the_candidates_is_said() -> None:
    assert proposals(3) == "3 fixed candidates, the same for every source"
    assert proposals(15, 2) == "15 fixed candidates, the same for every source, 2 trainings each"
    assert proposals(16) == "TPE, 16 trials"
    assert proposals(1) == "the default schedule alone, so nothing is tuned"


def test_the_notes_say_whether_the_noise_was_measured() -> None:
    measured = " ".join(gain_notes([{"schedule_kind": "tuned", "trials": 3, "trainings": 2}]))
    assert "3 fixed candidates, the same for every source, 2 trainings each" in measured
    assert "the best of 3 equal candidates is ahead of trial 0 by 0.6 SE on average, by chance alone" in measured
    assert "from the variance between trainings" in measured
    once = " ".join(gain_notes([{"schedule_kind": "tuned", "trials": 3, "trainings": 1}]))
    assert "the noise was not measured" in once
    assert "by 0.6 SE" in once
    assert gain_notes([{"schedule_kind": DEFAULT, "trials": 0, "trainings": 0}]) == [
        "schedule: the protocol's default (trial 0), not tuned"
    ]
    assert gain_notes([{"schedule_kind": "tuned", "trials": None, "trainings": 0}]) == []


def test_the_board_shows_the_gain_beside_its_noise(bench: Bench, tmp_path: Path) -> None:
    store = store_of(
        tmp_path / "store",
        cell("satir", "a", range(3), tuning=tuning(TRAININGS)),
        cell("none", "b", range(3, 6), tuning=tuning([[0.3, 0.2], [0.1, 0.1], [0.2, 0.2]])),
        cell("old", "c", range(6, 9)),  # one training per trial
    )
    text = bench("table", "--store", store.root).out
    gain = standard_error(TRAININGS)
    assert gain is not None
    assert f"+0.0300 ({0.03 / gain:.1f} SE)" in text
    assert "0 (trial 0 won)" in text
    assert "+0.1000 (SE unknown)" in text
    assert "by chance alone" in text
    cells = board(load_table(store.root)).set_index("source")
    assert cells.loc["satir", "tuning_gain"] == pytest.approx(0.03)
    assert cells.loc["satir", "tuning_gain_se"] == gain
    assert cells.loc["old", "trainings"] == 1
    rows = {
        each["source"]: each
        for each in csv.DictReader(io.StringIO(bench("table", "--format", "csv", "--store", store.root).out))
    }
    assert float(rows["satir"]["tuning_gain_se"]) == gain
    assert rows["old"]["tuning_gain_se"] == ""
    view = bench("table", "--tuning", "--store", store.root).out
    assert f"{gain:.4f}" in view
    assert "by chance alone" in view


def test_a_board_of_single_trainings_says_that_the_noise_was_not_measured(bench: Bench, tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", cell("none", "c", range(3)))
    assert "each trial was trained once, so the noise was not measured" in bench("table", "--store", store.root).out


def test_a_record_keeps_its_trainings() -> None:
    made = record(tuning=tuning(TRAININGS))
    assert RunRecord.model_validate_json(made.model_dump_json()) == made
    assert made.tuning is not None
    assert made.tuning.training_val_mious == TRAININGS
    assert "training_val_mious" not in record().model_dump()["tuning"]
    assert "schedule_kind" not in record().model_dump()


@pytest.mark.parametrize(
    "change",
    [
        {"training_val_mious": [[0.3, 0.3]]},  # not one list per trial
        {"training_val_mious": [[0.3, 1.5], [0.3, 0.3], [0.1, 0.1]]},
        {"training_val_mious": [[math.inf], [0.3], [0.1]]},
        {"tuned_val_miou": None},
        {"trials": 0},
        {"trials": 0, "tuned_val_miou": None},
        {"trials": -1},
    ],
)
def test_odd_tunings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        record(tuning=tuning(TRAININGS) | change)


def test_a_tuned_run_has_trials_and_one_with_the_default_schedule_has_none() -> None:
    """A run is complete only with the tuning that its schedule claims."""
    untuned = tuning(None)
    assert record(tuning=untuned, schedule_kind=DEFAULT).tuning is not None
    for fields in ({"tuning": untuned}, {"schedule_kind": DEFAULT}, {"tuning": untuned, "schedule_kind": "tuned"}):
        with pytest.raises(ValidationError, match="a run with the default schedule has 0 trials"):
            record(**fields)
    with pytest.raises(ValidationError, match="must not be null"):
        record(tuning=None, schedule_kind=DEFAULT)


def test_a_gain_of_a_run_without_tuning_is_unknown() -> None:
    assert gain_of(row(None, trials=0)) == Gain(None, None, 0)
    assert gain_of(row(TRAININGS) | {"default_val_miou": None}).value is None
