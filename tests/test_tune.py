import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import protocol_fields

from bench import DivergedError
from bench.plan.candidates import candidates
from bench.spec import Protocol
from bench.spec.parts import Range, Schedule
from bench.train.tune import Trial, best, propose, read_trials, tune
from pretrain_sources.hashing import derive_seed


def protocol(trials: int, **changes: object) -> Protocol:
    return Protocol.model_validate(protocol_fields(trials=trials, **changes))


def score(number: int, schedule: Schedule) -> float:
    """A quadratic score with its maximum near lr 1e-3; scores affect the sampler's next proposals."""
    return 1 / (1 + abs(schedule.lr - 1e-3) * 1000 + schedule.weight_decay)


def run_until_killed(path: Path, trials: int, last: int) -> None:
    """Run a study in a process that kills itself at the trial `last`."""

    def dying(number: int, schedule: Schedule) -> float:
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return score(number, schedule)

    victim = os.fork()
    if not victim:
        try:
            tune(protocol(trials), path, dying)
        finally:
            os._exit(1)  # not reached
    assert os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("trials", [6, 17])  # quasi-random below 16, TPE from there on
def test_a_killed_study_equals_an_uninterrupted_one(trials: int, tmp_path: Path) -> None:
    unbroken = tune(protocol(trials), tmp_path / "unbroken", score)
    path = tmp_path / "halves"
    run_until_killed(path, trials, trials // 2)
    assert len(read_trials(path)) == trials // 2
    assert tune(protocol(trials), path, score) == unbroken
    if trials == 6:
        for last in range(1, trials):
            run_until_killed(tmp_path / "ones", trials, last)
        assert tune(protocol(trials), tmp_path / "ones", score) == unbroken
    assert len({str(trial.schedule) for trial in unbroken}) == trials, "no trial repeats another"


def test_a_damaged_line_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "trials"
    unbroken = tune(protocol(4), path, score)
    path.write_bytes(path.read_bytes()[:-20])
    assert len(read_trials(path)) == 3
    assert tune(protocol(4), path, score) == unbroken


def test_finished_trials_are_not_run_again(tmp_path: Path) -> None:
    tune(protocol(4), tmp_path / "trials", score)
    tune(protocol(4), tmp_path / "trials", lambda number, schedule: pytest.fail("run again"))


def test_trial_0_is_the_default_and_every_cell_has_the_same_candidates(tmp_path: Path) -> None:
    a = tune(protocol(5), tmp_path / "a", score)
    b = tune(protocol(5), tmp_path / "b", lambda number, schedule: 1.0 - score(number, schedule))
    assert [trial.schedule for trial in a] == [trial.schedule for trial in b]
    assert a[0].schedule == protocol(5).default.model_dump()


def test_candidates_stay_in_the_space_and_differ() -> None:
    drawn = candidates(protocol(15))
    space = protocol(15).search
    assert all(space.holds(schedule) for schedule in drawn)
    assert {schedule.decay for schedule in drawn} == {"poly", "cosine"}
    assert sum(schedule.lr < 1e-3 for schedule in drawn[1:]) in range(5, 10)
    assert candidates(protocol(5)) == drawn[:5]


EDGES = {"lr": {"low": 2e-4, "high": 2e-4, "log": True}, "warmup_frac": {"low": 0.1, "high": 0.1}, "decay": ["poly"]}


@pytest.mark.filterwarnings("ignore:QMCSampler is experimental")
@pytest.mark.parametrize("edges", [{}, EDGES], ids=["ranges", "single values"])
def test_candidates_equal_those_of_optuna(edges: dict[str, object]) -> None:
    fields: dict[str, Any] = protocol_fields(trials=15)
    fields["search"] |= edges
    if edges:
        fields["default"] |= {"lr": 2e-4}
    settings = Protocol.model_validate(fields)
    space: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
        if isinstance(values, Range)
        else optuna.distributions.CategoricalDistribution(values)
        for name, values in settings.search
        if values is not None
    }
    seed = derive_seed(settings.seed, "candidates") % 2**32
    study = optuna.create_study(sampler=optuna.samplers.QMCSampler(scramble=True, seed=seed))
    study.add_trial(optuna.trial.create_trial(params=settings.default.model_dump(), distributions=space, value=0.0))
    expected = [study.ask(space).params for _ in range(14)]
    assert [schedule.model_dump() for schedule in candidates(settings)[1:]] == expected


def test_tpe_uses_previous_trials() -> None:
    def history(good: float) -> list[Trial]:
        drawn = candidates(protocol(15))
        return [Trial(i, s.model_dump(), 1 / (1 + abs(s.lr - good) * 1000)) for i, s in enumerate(drawn)]

    settings = protocol(20)
    assert propose(settings, history(1e-4)) == propose(settings, history(1e-4))
    assert propose(settings, history(1e-4)) != propose(settings, history(1e-2))


def test_a_diverged_trial_is_never_chosen(tmp_path: Path) -> None:
    def half(number: int, schedule: Schedule) -> float:
        if number % 2 == 0:
            raise DivergedError("not finite")
        return 0.1 * number

    trials = tune(protocol(4), tmp_path / "trials", half)
    assert [trial.val_miou for trial in trials] == [None, 0.1, None, pytest.approx(0.3)]
    assert best(trials)[0].number == 3
    assert read_trials(tmp_path / "trials") == trials


def test_a_study_of_diverged_trials_fails(tmp_path: Path) -> None:
    def never(number: int, schedule: Schedule) -> float:
        raise DivergedError("not finite")

    with pytest.raises(DivergedError, match="any of the 3 tuning trials"):
        tune(protocol(3), tmp_path / "trials", never)


def test_ties_choose_the_first_trial() -> None:
    assert best([Trial(0, {}, 0.5), Trial(1, {}, 0.5), Trial(2, {}, 0.4)]) == (Trial(0, {}, 0.5), 0.5)
