"""Text of `bench plan`: units to run, expected time and detectable difference. Loads no torch."""

import json
import math
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median, stdev
from typing import TYPE_CHECKING

from bench.cli.progress import Watch, duration, skipped_lines
from bench.plan.cost import paced_by, work_of
from bench.plan.matrix import Matrix
from bench.plan.plan import Known, Plan, Sweep
from bench.plan.prepare import look
from bench.plan.unit import KINDS
from bench.plan.unit_folder import SPENT, is_done
from bench.plan.units import FinalUnit, Unit, all_needed
from bench.targets import Target
from results import stats
from results.escape import for_terminal
from results.schedule_names import TUNED
from results.store import Store
from results.tuning_gain import proposals

if TYPE_CHECKING:
    from bench.run.probe import Forecast  # imports torch

READ = 300  # timed units to read per kind
TYPICAL_SD = 0.009  # median over the cells of results/runs; a test compares
Rates = dict[tuple[str, str, str], dict[str, float]]  # (kind, paced_by, protocol) -> device -> seconds a step of work


def plan_report(sweep: Sweep) -> str:
    """Describe the plan of a matrix. Writes nothing into the store: caches go into a temporary folder.

    Raises:
        BenchError: the data cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = sweep.store.root
        if (root / "cache").is_dir():
            shutil.copytree(root / "cache", folder, dirs_exist_ok=True)
        held = Store(root, cache=Path(folder))
        target, _, plan = look(replace(sweep, store=held), Watch(sweep.matrix, root))
        return "\n".join(map(for_terminal, _lines(sweep.matrix, target, plan, held)))


def _lines(matrix: Matrix, target: Target, plan: Plan, store: Store) -> Iterable[str]:
    protocol = matrix.protocol
    yield (
        f"{matrix.name}: {protocol.name} on {matrix.target}, {len(matrix.cells)} cells, "
        f"{protocol.replicates} replicates each: {len(plan.finals)} runs"
    )
    tuned = sum(cell.schedule == TUNED for cell in matrix.cells)
    if tuned:
        each = protocol.trials * protocol.tune_replicates
        made = proposals(protocol.trials, protocol.tune_replicates)
        yield f"  schedules: {made}; {each} training{'s' * (each > 1)} to tune a cell"
    if tuned < len(matrix.cells):
        yield f"  {len(matrix.cells) - tuned} of the cells have the default schedule, without tuning"
    if protocol.device == "cuda":
        yield f"  {protocol.name} needs a CUDA GPU; on a machine without one, --smoke tries the matrix on the CPU"
    users: dict[str, set[str]] = defaultdict(set)
    units: dict[str, Unit] = {}
    for final in plan.finals:
        for unit in (*all_needed(final), final):
            units[unit.fingerprint] = unit
            users[unit.fingerprint].add(str(final.cell))
    todo = {unit.fingerprint for unit in plan.todo}
    skipped = {unit.fingerprint for final, _ in plan.skipped for unit in (*all_needed(final), final)} - todo
    for kind in KINDS:
        those = [unit for unit in units.values() if unit.kind == kind]
        if those:
            left = sum(unit.fingerprint in todo for unit in those)
            shared = sum(len(users[unit.fingerprint]) > 1 for unit in those)
            done = {unit.fingerprint for unit in those if _done(store, unit, plan)}
            cannot = sum(unit.fingerprint in skipped - done for unit in those)
            notes = [f"{len(done)} done", f"{left} to do"]
            notes += [f"{shared} shared by several cells"] if shared else []
            notes += [f"{cannot} skipped"] if cannot else []
            yield f"  {kind:8} {len(those):6} units: {', '.join(notes)}"
    failed = Counter(record.status for record in plan.records.values() if record.status not in ("ok", "skipped"))
    for status, count in failed.items():
        yield f"  {count} runs are {status}; only --retry repeats them (reasons: `bench status`)"
    yield from skipped_lines(plan)
    yield from _time(plan, target, store)
    yield from _power(matrix, plan)


def _done(store: Store, unit: Unit, plan: Plan) -> bool:
    if isinstance(unit, FinalUnit):
        record = plan.records.get(unit.fingerprint)
        return record is not None and record.status == "ok"
    return is_done(store, unit)


def _time(plan: Plan, target: Target, store: Store) -> Iterable[str]:
    """Estimate the remaining time on each device on which such units were timed."""
    if not plan.todo:
        yield "  time: none, nothing is left to do"
        return
    rates = _rates(store)
    devices = {device for by_device in rates.values() for device in by_device}
    unknown = Counter(unit.kind for unit in plan.todo if _key(unit) not in rates)
    for device in sorted(devices):
        known = [(unit, rate) for unit in plan.todo if (rate := rates.get(_key(unit), {}).get(device)) is not None]
        if known:
            seconds = sum(work_of(unit, target) * rate for unit, rate in known)
            longest = max(work_of(unit, target) * rate for unit, rate in known)
            yield (
                f"  time on {device}: {duration(seconds)} with one worker for {len(known)} of {len(plan.todo)} units, "
                f"the longest {duration(longest)}"
            )
    if unknown:
        counts = ", ".join(f"{count} {kind}" for kind, count in unknown.items())
        yield f"  time: unknown for {counts}: this store has no timings of such units"


def forecast_text(forecast: "Forecast") -> str:
    """Describe a forecast that was measured."""
    total = sum(forecast.seconds.values())
    if not total:
        return "forecast: nothing is left to do"
    rows = [
        f"  {kind:8} {forecast.units[kind]:6} units: {duration(forecast.seconds.get(kind, 0.0))} of work"
        for kind in KINDS
        if kind in forecast.units
    ]
    workers = "1 worker" if forecast.workers == 1 else f"{forecast.workers} workers at once"
    jobs, longest = sum(forecast.units.values()), duration(forecast.longest)
    elapsed = duration(max(total / forecast.workers, forecast.longest))
    lines = [f"forecast, measured in {duration(forecast.probed_s)} with {workers}:", *rows]
    lines += [f"  together {duration(total)}: about {elapsed} with {workers}; the longest unit takes {longest}"]
    lines += [f"  on Slurm: {jobs} jobs of {total / 3600:.1f} hours in all, on a machine such as this one"]
    unknown = ", ".join(f"{count} {kind}" for kind, count in forecast.unknown.items())
    return "\n".join([*lines, *([f"  not counted, because they could not be timed: {unknown}"] if unknown else [])])


def _key(unit: Unit) -> tuple[str, str, str]:
    return unit.kind, paced_by(unit), unit.protocol.name


def _rates(store: Store) -> Rates:
    """Total seconds per total work, over the timed units of the store."""
    totals: dict[tuple[str, str, str], dict[str, tuple[float, float]]] = defaultdict(dict)
    for kind in KINDS:
        folder = store.root / "units" / kind
        paths = sorted(folder.iterdir())[:READ] if folder.is_dir() else []
        for path in paths:
            try:
                spent = json.loads((path / SPENT).read_bytes())
                key = (kind, spent["by"], spent["protocol"])
                if spent["work"] < 2:  # loaded weights, not trained ones
                    continue
                seconds, work = totals[key].get(spent["device"], (0.0, 0.0))
                totals[key][spent["device"]] = seconds + spent["seconds"], work + spent["work"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return {key: {device: seconds / work for device, (seconds, work) in by.items()} for key, by in totals.items()}


def _power(matrix: Matrix, plan: Plan) -> Iterable[str]:
    """The smallest difference between two sources that these replicates can show."""
    replicates, backbones = matrix.protocol.replicates, len({cell.backbone for cell in matrix.cells})
    one = stats.detectable(replicates) if replicates >= stats.MIN_REPLICATES else None
    if one is None:
        yield (
            f"  no difference can be shown: a test needs {stats.MIN_REPLICATES} replicates, "
            f"and {matrix.protocol.name} has {replicates}"
        )
        return
    sds = _deviations(plan.records.values())
    sd = median(sds) if sds else TYPICAL_SD
    yield (
        f"  two sources must differ by about {one * sd:.3f} mIoU on one backbone for {replicates} replicates to show it "
        "(in 4 of 5 studies, p < 5 %)"
    )
    sources = len({cell.source for cell in matrix.cells})
    if (family := math.comb(sources, 2)) > 1:
        first = stats.detectable(replicates, level=1 - (1 - stats.LEVEL) / family)
        assert first is not None
        yield f"    or by about {first * sd:.3f} mIoU to be established first among all {family} pairs (Holm)"
    if backbones > 1:
        pooled = stats.detectable(replicates, backbones)
        assert pooled is not None
        yield f"    or by about {pooled * sd:.3f} mIoU if pooled over {backbones} backbones"
    whence = "measured in this store" if sds else "that of the shipped runs, because this store has no such runs yet"
    yield f"    for a standard deviation of {sd:.3f} mIoU between replicates, {whence}"


def _deviations(records: Iterable[Known]) -> list[float]:
    by_cell: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.miou is not None:
            by_cell[record.cell].append(record.miou)
    return [stdev(values) for values in by_cell.values() if len(values) > 1]
