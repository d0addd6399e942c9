"""Tuning a cell's schedule with Optuna. A resumed study equals an uninterrupted one.

A seeded sampler restarts its sequence when it is rebuilt, so a resumed study would repeat its first trials. Therefore finished
trials are stored as JSON lines, and the study is rebuilt from them in memory for each trial. Below 16 trials every cell
has the same quasi-random candidates; from 16 on each trial gets a fresh TPE sampler.

A trial may be several trainings (`tune_replicates`). Those of an unfinished trial are stored as a last line without `val_miou`.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from bench import DivergedError
from bench.plan.candidates import candidates
from bench.plan.trials import Trial, best, read_trials, read_unfinished, trial_of
from bench.spec import Protocol
from bench.spec.parts import Range, Schedule
from pretrain_sources.hashing import derive_seed
from results.schedule_names import TPE_FROM_TRIALS
from results.store import write_atomic

optuna.logging.set_verbosity(optuna.logging.WARNING)


def tune(protocol: Protocol, path: Path, score: Callable[[int, Schedule], float]) -> list[Trial]:
    """Run the missing trainings of a study; return all trials.

    path: stored trials. score: validation mIoU of (number of the training in the study, schedule). A training that diverges ends
    its trial.

    Raises:
        DivergedError: every trial diverged.
    """
    trials = read_trials(path)
    if len(trials) == protocol.trials and all(trial.val_miou is None for trial in trials):
        trials = []  # only --retry runs a failed study again
    while len(trials) < protocol.trials:
        number, schedule = len(trials), propose(protocol, trials)
        values: list[float | None] = [*read_unfinished(path, number, schedule.model_dump(), protocol.tune_replicates)]
        while len(values) < protocol.tune_replicates and None not in values:
            try:
                values.append(score(number * protocol.tune_replicates + len(values), schedule))
            except DivergedError:
                values.append(None)
            if len(values) < protocol.tune_replicates and None not in values:
                begun = {"number": number, "schedule": schedule.model_dump(), "val_mious": values}
                _write(path, [*(trial.to_json() for trial in trials), begun])
        trials = [*trials, trial_of(number, schedule.model_dump(), values, protocol.tune_replicates)]
        _write(path, [trial.to_json() for trial in trials])
    best(trials)
    return trials


def seed_name(protocol: Protocol, training: int) -> str:
    """Return what the seeds of a training of a study derive from: the same for every trial, `tune` first."""
    which = training % protocol.tune_replicates
    return f"tune-{which}" if which else "tune"


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def propose(protocol: Protocol, done: list[Trial]) -> Schedule:
    """Return the schedule of trial number len(done): a pure function of the protocol and the previous trials."""
    if not done:
        return protocol.default
    if protocol.trials < TPE_FROM_TRIALS:
        return candidates(protocol)[len(done)]
    sampler = optuna.samplers.TPESampler(seed=derive_seed(protocol.seed, "trial", len(done)) % 2**32)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in done:
        study.add_trial(frozen_trial(protocol, trial))
    return Schedule.model_validate(protocol.default.model_dump() | study.ask(_space(protocol)).params)


def _space(protocol: Protocol) -> dict[str, BaseDistribution]:
    space: dict[str, BaseDistribution] = {}
    for name, values in protocol.search:
        if isinstance(values, Range):
            space[name] = FloatDistribution(values.low, values.high, log=values.log)
        elif values is not None:
            space[name] = CategoricalDistribution(values)
    return space


def frozen_trial(
    protocol: Protocol, trial: Trial, user_attrs: dict[str, Any] | None = None
) -> optuna.trial.FrozenTrial:
    """Return a trial as Optuna keeps it; one that diverged has failed."""
    result: dict[str, Any] = {"state": TrialState.FAIL} if trial.val_miou is None else {"value": trial.val_miou}
    space = _space(protocol)
    params = {name: value for name, value in trial.schedule.items() if name in space}
    return create_trial(params=params, distributions=space, user_attrs=user_attrs, **result)
