"""Trials of several trainings: their mean, their seeds, their divergence, and studies that are killed in the middle of one."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import protocol_fields

from bench import DivergedError
from bench.plan.trials import Trial, read_trials, trial_of, tuning_of
from bench.spec import Protocol
from bench.spec.parts import Schedule
from bench.train.tune import seed_name, tune

TRAININGS = 3
Score = Callable[[int, Schedule], float]


def protocol(**changes: object) -> Protocol:
    return Protocol.model_validate(protocol_fields(**{"trials": 4, "tune_replicates": TRAININGS, **changes}))


def score(training: int, schedule: Schedule) -> float:
    """A score that depends on the training and on the schedule."""
    return 1 / (3 + training % 7 + abs(schedule.lr - 1e-3) * 100)


def counted(calls: list[int], of: Score = score) -> Score:
    def scored(training: int, schedule: Schedule) -> float:
        calls.append(training)
        return of(training, schedule)

    return scored


def test_a_trial_counts_as_the_mean_of_its_trainings(tmp_path: Path) -> None:
    calls: list[int] = []
    trials = tune(protocol(), tmp_path / "trials", counted(calls))
    assert calls == list(range(4 * TRAININGS))
    for trial in trials:
        values = [
            score(trial.number * TRAININGS + i, Schedule.model_validate(trial.schedule)) for i in range(TRAININGS)
        ]
        assert trial.val_mious == values
        assert trial.val_miou == pytest.approx(sum(values) / TRAININGS)
        assert trial.follows_from(TRAININGS)
    tuning = tuning_of(trials)
    assert tuning.training_val_mious == [trial.val_mious for trial in trials]
    assert tuning.tuned_val_miou == max(trial.val_miou for trial in trials if trial.val_miou is not None)


def test_the_first_seed_is_that_of_a_single_training_and_all_trials_have_the_same() -> None:
    names = [seed_name(protocol(), training) for training in range(2 * TRAININGS)]
    assert names == ["tune", "tune-1", "tune-2"] * 2
    assert {seed_name(protocol(tune_replicates=1), training) for training in range(9)} == {"tune"}


@pytest.mark.parametrize("trials", [4, 17])  # quasi-random, and TPE
@pytest.mark.parametrize("last", [1, 4, 5, 6, 8])  # the training at which the process dies
def test_a_study_killed_in_a_trial_equals_an_uninterrupted_one(trials: int, last: int, tmp_path: Path) -> None:
    def dying(training: int, schedule: Schedule) -> float:
        if training == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return score(training, schedule)

    unbroken = tune(protocol(trials=trials), tmp_path / "unbroken", score)
    victim = os.fork()
    if not victim:
        try:
            tune(protocol(trials=trials), tmp_path / "halves", dying)
        finally:
            os._exit(1)  # not reached
    assert os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) == -signal.SIGKILL
    calls: list[int] = []
    assert len(read_trials(tmp_path / "halves")) == last // TRAININGS, "an unfinished trial is no trial"
    assert tune(protocol(trials=trials), tmp_path / "halves", counted(calls)) == unbroken
    assert calls == list(range(last, trials * TRAININGS)), "finished trainings are not run again"
    assert (tmp_path / "halves").read_bytes() == (tmp_path / "unbroken").read_bytes()


UNFIT: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "of another trial": lambda row: row | {"number": 2},
    "of another schedule": lambda row: row | {"schedule": row["schedule"] | {"lr": 0.5}},
    "too many": lambda row: row | {"val_mious": [0.1] * TRAININGS},
    "not numbers": lambda row: row | {"val_mious": ["a"]},
    "not finite": lambda row: row | {"val_mious": [float("nan")]},
    "no list": lambda row: row | {"val_mious": 3},
    "more": lambda row: row | {"more": 1},
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_an_unfit_line_of_an_unfinished_trial_is_run_again(unfit: str, tmp_path: Path) -> None:
    path = tmp_path / "trials"
    unbroken = tune(protocol(), path, score)
    first, second, *_ = path.read_text().splitlines()
    begun = {name: json.loads(second)[name] for name in ("number", "schedule")} | {"val_mious": [0.25]}
    path.write_text(f"{first}\n{json.dumps(UNFIT[unfit](begun))}\n")
    calls: list[int] = []
    assert tune(protocol(), path, counted(calls)) == unbroken
    assert calls == list(range(TRAININGS, 4 * TRAININGS))


def test_a_trial_of_which_one_training_diverges_has_diverged(tmp_path: Path) -> None:
    calls: list[int] = []

    def some(training: int, schedule: Schedule) -> float:
        if training in (TRAININGS, 2 * TRAININGS + 1):  # the first of trial 1, the second of trial 2
            raise DivergedError("not finite")
        return score(training, schedule)

    trials = tune(protocol(), tmp_path / "trials", counted(calls, some))
    assert [trial.val_miou is None for trial in trials] == [False, True, True, False]
    assert trials[1].val_mious == [None]
    assert trials[2].val_mious is not None
    assert trials[2].val_mious[1:] == [None], "a training that diverged ends its trial"
    assert calls == [0, 1, 2, 3, 6, 7, 9, 10, 11]
    assert all(trial.follows_from(TRAININGS) for trial in trials)
    assert read_trials(tmp_path / "trials") == trials
    assert tuning_of(trials).training_val_mious == [trial.val_mious for trial in trials]


def test_single_trainings_are_stored_as_ever(tmp_path: Path) -> None:
    trials = tune(protocol(tune_replicates=1), tmp_path / "trials", score)
    rows = [json.loads(line) for line in (tmp_path / "trials").read_text().splitlines()]
    assert [list(row) for row in rows] == [["number", "schedule", "val_miou"]] * 4
    assert [row["val_miou"] for row in rows] == [
        score(n, Schedule.model_validate(rows[n]["schedule"])) for n in range(4)
    ]
    assert tuning_of(trials).training_val_mious is None
    assert "training_val_mious" not in tuning_of(trials).model_dump()
    assert all(trial.follows_from(1) for trial in trials)


@pytest.mark.parametrize(
    ("trial", "trainings"),
    [
        (Trial(0, {}, 0.3, [0.3]), 2),  # too few
        (Trial(0, {}, 0.3, [0.3, 0.3, 0.3]), 2),  # too many
        (Trial(0, {}, 0.4, [0.3, 0.3]), 2),  # another mean
        (Trial(0, {}, 0.3, [0.3, None]), 2),  # a mean in spite of a divergence
        (Trial(0, {}, None, [None, 0.3]), 2),  # goes on after a divergence
        (Trial(0, {}, None, [0.3, 0.3]), 2),  # no divergence
        (Trial(0, {}, None, []), 2),
        (Trial(0, {}, 0.3), 2),  # none stored
        (Trial(0, {}, 0.3, [0.3]), 1),  # stored, though there is one
    ],
)
def test_edited_trainings_do_not_follow(trial: Trial, trainings: int) -> None:
    assert not trial.follows_from(trainings)
    assert trial_of(0, {}, [0.25, 0.35], 2).follows_from(2)


def test_identities_change_only_with_more_trainings() -> None:
    one, default = protocol(tune_replicates=1), Protocol.model_validate(protocol_fields(trials=4))
    assert one.identity_hash == default.identity_hash
    assert "tune_replicates" not in default.identity()
    assert protocol().identity_hash != one.identity_hash
    assert protocol().pretraining_hash == one.pretraining_hash
    assert protocol().smoke().tune_replicates == 1
