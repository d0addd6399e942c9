"""A forecast of run times before anything ran: a small copy of the matrix runs in a temporary store, and its steps are timed.

The copy has the real crops, batches, backbones and teachers, and few steps and frames. As many workers compute at once as in the
real run, because they slow each other down. What is not timed is counted: points of the val curve, held-out images.
"""

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.plan.cost import frames_of, paced_by
from bench.plan.events import Show
from bench.plan.plan import Plan, Sweep
from bench.plan.prepare import look
from bench.plan.unit import Kind
from bench.plan.units import CorpusUnit, FinalUnit, Learned, PretrainUnit, Reconstructed, TuneUnit, Unit, all_needed
from bench.run.run import How, places_of, run_matrix
from bench.spec import Cell, Protocol
from bench.targets import Target
from bench.train.lesson import held_out_of
from bench.train.pretrain import HELD_OUT_BATCHES
from bench.train.watch import POINTS, frames_watched
from results.record import TEST
from results.store import Store

STEPS_CPU, STEPS_GPU = 6, 200  # of a training; a GPU reports its steps once a second
FRAMES = 6  # of a split, and images of a pool
FORWARD = 1 / 3  # share of a training step that is its forward pass

Key = tuple[Kind, str]  # kind of unit, and its `paced_by`


@dataclass(frozen=True)
class Pace:
    """Seconds of a training step or a teacher's image, of a predicted frame, and of all else of a unit."""

    step: float
    frame: float
    fixed: float


@dataclass(frozen=True)
class Forecast:
    """What a run of a matrix takes.

    Attributes:
        workers: units that compute at once. seconds: kind -> seconds of work of its units; units: kind -> their number.
        longest: seconds of the longest unit. unknown: kind -> number of units whose pace could not be measured.
        probed_s: seconds that the measurement took.
    """

    workers: int
    seconds: Mapping[Kind, float]
    units: Mapping[Kind, int]
    longest: float
    unknown: Mapping[Kind, int]
    probed_s: float


def probe(sweep: Sweep, how: How, show: Show) -> Forecast:
    """Time a few steps of each kind of unit that is to do, for each backbone and teacher, and add up the whole plan.

    The store is not touched; its caches are copied.

    Raises:
        BenchError: the data cannot be used, or the protocol's device is missing.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        if (sweep.store.root / "cache").is_dir():
            shutil.copytree(sweep.store.root / "cache", cache)
        target, _, plan = look(replace(sweep, store=Store(sweep.store.root, cache=cache)), show)
        places = places_of(sweep.matrix.protocol, how, show) if plan.todo else [None]
        timed = _Stopwatch(show)
        if plan.todo:
            little = _little(sweep.matrix.protocol, places)
            matrix = replace(sweep.matrix, protocol=little, cells=_telling_cells(plan))
            run_matrix(replace(sweep, matrix=matrix, store=Store(Path(folder)), retry=(), keep=False), how, timed)
    return _forecast(plan, target, timed.paces(), len(places), time.monotonic() - began)


def _little(protocol: Protocol, places: Sequence[int | None]) -> Protocol:
    """Return a copy of the protocol with few steps, trials and frames, and a replicate for each worker. places: of the workers."""
    steps = STEPS_CPU if None in places else STEPS_GPU
    changes: dict[str, Any] = {"name": f"{protocol.name}~probe", "ranked": False, "finetune_steps": steps}
    changes |= {"trials": 1, "tune_replicates": 1, "replicates": len(places), "max_frames": FRAMES}
    if protocol.pretrain_epochs is None:
        changes["pretrain_steps"] = steps
    else:
        changes["pretrain_epochs"] = steps * protocol.batch / FRAMES
    return protocol.model_copy(update=changes)


def _telling_cells(plan: Plan) -> tuple[Cell, ...]:
    """Choose cells whose units show every pace of the plan."""
    todo = {unit.fingerprint for unit in plan.todo}
    shown: set[Key] = set()
    cells: dict[Cell, None] = {}
    for final in plan.finals:
        paces = {_key(unit) for unit in (*all_needed(final), final) if unit.fingerprint in todo}
        if final.fingerprint in todo and paces - shown:
            shown |= paces
            cells[final.cell] = None
    return tuple(cells)


def _key(unit: Unit) -> Key:
    """Loaded weights take no steps, so they have a pace of their own."""
    loaded = isinstance(unit, PretrainUnit) and not unit.steps
    return unit.kind, f"{paced_by(unit)}{', loaded' if loaded else ''}"


@dataclass
class _Timed:
    """The times of a unit: its start, (steps done, time) of each report, its end."""

    unit: Unit
    began: float
    reports: list[tuple[int, float]] = field(default_factory=list)
    ended: float | None = None

    def slope(self, first: int, last: int) -> float | None:
        """Seconds of a step of first..last, from the reports within; None without any."""
        there = [(done, at) for done, at in self.reports if first <= done <= last]
        if not there:
            return None
        (done, at), (end, end_at) = there[0], there[-1]
        if end > done:
            return (end_at - at) / (end - done)
        before = [(known, when) for known, when in self.reports if known < done] or [(first - 1, self.began)]
        return (at - before[-1][1]) / max(1, done - before[-1][0])


class _Stopwatch:
    """The events of the small run, with their times. Passes on what a person waits for."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._timed: dict[str, _Timed] = {}

    def checking(self, what: str, done: int, total: int) -> None:
        """Nothing: the files were checked before."""

    def noted(self, text: str) -> None:
        """Nothing: told before."""

    def planned(self, plan: Plan, target: Target) -> None:
        """Tell how many units are timed."""
        self._show.noted(f"timing a few steps of {len(plan.todo)} units")

    def started(self, unit: Unit) -> None:
        """Start the time of a unit; again for one that had to wait."""
        self._timed[unit.fingerprint] = _Timed(unit, time.monotonic())

    def progress(self, unit: Unit, done: int, total: int, /, **facts: float) -> None:
        """Keep the time of a report."""
        self._timed[unit.fingerprint].reports.append((done, time.monotonic()))

    def finished(self, unit: Unit, status: str, reason: str | None) -> None:
        """Keep the time of the end; tell it."""
        timed = self._timed[unit.fingerprint]
        if status != "ok":
            self._show.noted(f"not timed: {unit}: {status}: {reason}")
            return
        timed.ended = time.monotonic()
        self._show.noted(f"timed {unit}: {timed.ended - timed.began:.0f} s")

    def paces(self) -> dict[Key, Pace]:
        """Return the mean pace of each kind of unit that ended well.

        A final's steps are those of its tuning, because its val curve comes between its own.
        """
        found: dict[Key, list[Pace]] = defaultdict(list)
        for timed in self._timed.values():
            if timed.ended is not None:
                found[_key(timed.unit)].append(_pace(timed, timed.ended))
        paces = {key: _mean(each) for key, each in found.items()}
        for (kind, by), pace in list(paces.items()):
            if kind == "final" and ("tune", by) in paces:
                paces[kind, by] = replace(pace, step=paces["tune", by].step)
        return paces


def _pace(timed: _Timed, ended: float) -> Pace:
    unit, last = timed.unit, max((done for done, _ in timed.reports), default=0)
    steps = unit.steps if isinstance(unit, TuneUnit | FinalUnit) else last
    step, frame = timed.slope(1, steps) or 0.0, timed.slope(steps + 1, last) or 0.0
    first = timed.reports[0] if timed.reports else (0, ended)
    # the first step warms up, so it belongs to what is fixed
    phases = (min(steps, last) - first[0]) * step + (last - steps) * frame if timed.reports else 0.0
    return Pace(step, frame, max(0.0, ended - timed.began - phases))


def _mean(paces: Sequence[Pace]) -> Pace:
    n = len(paces)
    return Pace(sum(p.step for p in paces) / n, sum(p.frame for p in paces) / n, sum(p.fixed for p in paces) / n)


def _forecast(plan: Plan, target: Target, paces: Mapping[Key, Pace], workers: int, probed_s: float) -> Forecast:
    seconds: dict[Kind, float] = defaultdict(float)
    units: dict[Kind, int] = defaultdict(int)
    unknown: dict[Kind, int] = defaultdict(int)
    longest = 0.0
    drawn: set[str] = set()  # teachers whose masks exist by then: other corpora of them only read
    for unit in plan.todo:
        units[unit.kind] += 1
        pace = paces.get(_key(unit))
        if pace is None:
            unknown[unit.kind] += 1
            continue
        again = isinstance(unit, CorpusUnit) and paced_by(unit) in drawn
        drawn |= {paced_by(unit)} if isinstance(unit, CorpusUnit) else set()
        takes = pace.fixed if again else _seconds(unit, target, pace, paces)
        seconds[unit.kind] += takes
        longest = max(longest, takes)
    return Forecast(workers, dict(seconds), dict(units), longest, dict(unknown), probed_s)


def _seconds(unit: Unit, target: Target, pace: Pace, paces: Mapping[Key, Pace]) -> float:
    """Return the seconds of a whole unit."""
    protocol, frames = unit.protocol, frames_of(unit.protocol, target)
    if isinstance(unit, CorpusUnit):
        return pace.fixed + unit.images * pace.step
    if isinstance(unit, PretrainUnit):
        predicted = paces.get(("tune", unit.backbone.name), pace).frame
        return pace.fixed + unit.steps * pace.step + _held_out(unit, pace, predicted)
    if isinstance(unit, TuneUnit):
        each = unit.steps * pace.step + frames[protocol.select_on] * pace.frame
        return pace.fixed + protocol.trials * protocol.tune_replicates * each
    watched = POINTS * frames_watched(unit.steps) * pace.frame
    tested = sum(frames[split] for split in (TEST, *target.further)) * pace.frame
    return pace.fixed + unit.steps * pace.step + watched + tested


def _held_out(unit: PretrainUnit, pace: Pace, frame: float) -> float:
    """Return the seconds of a pretraining on its held-out images: their loss before and after, and one prediction of each."""
    match unit.weights:
        case Learned(labels=learned) | Reconstructed(part=learned):
            held_out = held_out_of(learned.images)
        case _:
            return 0.0
    return 2 * min(HELD_OUT_BATCHES, held_out) * FORWARD * pace.step + held_out * frame
