"""Tuning a cell's schedule with Optuna. A resumed study equals an uninterrupted one.

A seeded sampler restarts its sequence when it is rebuilt, so a resumed study would repeat its first trials. Therefore finished
trials are stored as JSON lines, and the study is rebuilt from them in memory for each trial. Below 16 trials every cell
has the same quasi-random candidates; from 16 on each trial gets a fresh TPE sampler.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from bench import DivergedError
from bench.plan.candidates import TPE_FROM_TRIALS, candidates
from bench.plan.trials import Trial, best, read_trials
from bench.spec import Protocol
from bench.spec.parts import Range, Schedule
from pretrain_sources.hashing import derive_seed
from results.store import write_atomic

optuna.logging.set_verbosity(optuna.logging.WARNING)


def tune(protocol: Protocol, path: Path, score: Callable[[int, Schedule], float]) -> list[Trial]:
    """Run the missing trials of a study; return all. `path`: stored trials. `score`: validation mIoU of (number, schedule).

    Raises:
        DivergedError: every trial diverged.
    """
    trials = read_trials(path)
    if len(trials) == protocol.trials and all(trial.val_miou is None for trial in trials):
        trials = []  # only --retry runs a failed study again
    while len(trials) < protocol.trials:
        schedule = propose(protocol, trials)
        try:
            value: float | None = score(len(trials), schedule)
        except DivergedError:
            value = None
        trials = [*trials, Trial(len(trials), schedule.model_dump(), value)]
        write_atomic(path, "".join(json.dumps(asdict(trial)) + "\n" for trial in trials).encode())
    best(trials)
    return trials


def propose(protocol: Protocol, done: list[Trial]) -> Schedule:
    """Return the schedule of trial number len(done): a pure function of the protocol and the previous trials."""
    if not done:
        return protocol.default
    if protocol.trials < TPE_FROM_TRIALS:
        return candidates(protocol)[len(done)]
    sampler = optuna.samplers.TPESampler(seed=derive_seed(protocol.seed, "trial", len(done)) % 2**32)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in done:
        study.add_trial(_frozen(protocol, trial))
    return Schedule.model_validate(protocol.default.model_dump() | study.ask(_space(protocol)).params)


def _space(protocol: Protocol) -> dict[str, BaseDistribution]:
    space: dict[str, BaseDistribution] = {}
    for name, values in protocol.search:
        if isinstance(values, Range):
            space[name] = FloatDistribution(values.low, values.high, log=values.log)
        elif values is not None:
            space[name] = CategoricalDistribution(values)
    return space


def _frozen(protocol: Protocol, trial: Trial) -> optuna.trial.FrozenTrial:
    result: dict[str, Any] = {"state": TrialState.FAIL} if trial.val_miou is None else {"value": trial.val_miou}
    space = _space(protocol)
    params = {name: value for name, value in trial.schedule.items() if name in space}
    return create_trial(params=params, distributions=space, **result)
