"""What a run says of the time that it will still take."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import watch


class Told:
    """A run of made-up units, its clock in our hands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **work: int) -> None:
        self.now = 0.0
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)
        self.units: dict[str, Any] = {}
        for name, steps in work.items():
            fields = {"fingerprint": name, "kind": name.partition("_")[0], "work": lambda _, steps=steps: steps}
            self.units[name] = SimpleNamespace(**fields)
        matrix: Any = SimpleNamespace(name="m", protocol=SimpleNamespace(name="p"), cells=[])
        plan: Any = SimpleNamespace(todo=list(self.units.values()), finals=[], skipped=[])
        self.watch = watch.Watch(matrix, Path("store"))
        self.watch.planned(plan, SimpleNamespace(spec=SimpleNamespace(name="t"), notes=[]))  # type: ignore[arg-type]

    def after(self, seconds: float, **done: int) -> float | None:
        self.now += seconds
        for name, steps in done.items():
            self.watch.progress(self.units[name], steps, self.units[name].work(None))
        return self.watch._seconds_left()


def test_an_image_of_a_corpus_takes_longer_than_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, corpus_a=100, tune_a=1000, tune_b=1000)
    told.watch.started(told.units["corpus_a"])
    told.watch.started(told.units["tune_a"])
    told.after(0, corpus_a=1, tune_a=1)
    assert told.after(20, corpus_a=4, tune_a=200) is None, "too early to tell"
    assert told.after(180, corpus_a=40, tune_a=400) == pytest.approx((60 * 5 + 1600 * 0.5) / 2)
    told.watch.finished(told.units["tune_a"], "ok", None)
    left = 60 * 5 + 1000 * 0.2  # as if the rest of it had taken no time
    assert told.after(0) == pytest.approx(left / 2), "the next one starts at once: there are two workers"
    told.watch.started(told.units["tune_b"])
    told.after(0, tune_b=1)
    told.watch.finished(told.units["tune_b"], "ok", None)
    assert told.after(0) == pytest.approx(60 * 5), "one unit is left, and one worker can be at it"


def test_weights_that_load_in_seconds_are_no_pace_for_pretrainings(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, pretrain_a=1, pretrain_b=3000, tune_a=1000)
    told.watch.started(told.units["pretrain_a"])
    told.after(2)
    told.watch.finished(told.units["pretrain_a"], "ok", None)
    told.watch.started(told.units["tune_a"])
    told.after(0, tune_a=1)
    assert told.after(98, tune_a=500) == pytest.approx((500 * 98 / 500) + 3000 * 100 / 501)
    told.watch.started(told.units["tune_a"])
    assert told.watch._pieces["tune_a"].since == 2, "told of again, as of a unit that another call is at"


def test_what_a_killed_call_had_done_is_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, tune_a=1000)
    told.watch.started(told.units["tune_a"])
    told.after(0, tune_a=901)
    assert told.after(99, tune_a=950) == pytest.approx(50 * 99 / 50)
