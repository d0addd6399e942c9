"""Run one unit: lock it, execute it at most once, record the outcome."""

import json
import time
from dataclasses import asdict
from typing import Any

from bench.plan.cost import paced_by
from bench.plan.outcome import Context, Outcome, held_by
from bench.plan.records import now, unfinished
from bench.plan.unit_folder import (
    CHECKPOINT,
    CLAIM,
    LOG,
    OUTCOME,
    PROGRESS,
    SPENT,
    folder_of,
    is_done,
    is_kept,
    record_of,
)
from bench.plan.units import FinalUnit, Unit
from bench.train import devices
from bench.train.loop import Progress
from pretrain_sources.sockets import shorten_socket_paths
from results.locks import HeldError, LocksError, locked
from results.record_files import write_record
from results.store import Store, StoreError, cannot_write, write_atomic
from safe_io.user_code import search_in

SAVED_EVERY_S = 5.0  # between two updates of progress.json


def perform(unit: Unit, context: Context, report: Progress) -> Outcome:
    """Run a unit unless it is done, locked, or its needs are missing. Only an interrupt raises."""
    from bench.train.stages import execute

    store = Store(context.store)
    folder = folder_of(store, unit)
    search_in(context.code)
    try:
        shorten_socket_paths()
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / CLAIM):
            if _has_ended(store, unit, context.keep):
                return Outcome("ok")
            if (unmet := _unmet(store, unit)) is not None:
                return settle(unit, context, unmet)
            progress = _ProgressFile(unit, store, report)
            outcome = settle(unit, context, execute(unit, context, progress))
            if outcome.status == "ok":
                progress.close()
            return outcome
    except HeldError as error:
        return held_by(error)
    except LocksError as error:
        return Outcome("failed", str(error), fatal=True)
    except StoreError as error:
        return Outcome("failed", str(error), fatal=True)
    except OSError as error:
        return Outcome("failed", str(cannot_write(folder, error)), fatal=True)


def settle(unit: Unit, context: Context, outcome: Outcome) -> Outcome:
    """Store the outcome of a unit: the record of a final, or outcome.json for the units that need it.

    Raises:
        StoreError: the store cannot be written.
    """
    store = Store(context.store)
    folder = folder_of(store, unit)
    if outcome.status == "ok":
        (folder / OUTCOME).unlink(missing_ok=True)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    elif outcome.fatal or outcome.again or outcome.status in ("busy", "waiting"):
        return outcome
    elif isinstance(unit, FinalUnit):
        reason = outcome.reason or "no reason given"
        write_record(store, unfinished(unit, context.target.spec, outcome.status, reason), extra=dict(outcome.files))  # type: ignore[arg-type]
    else:
        write_atomic(folder / OUTCOME, (json.dumps(asdict(outcome), indent=1) + "\n").encode())
    return outcome


def _has_ended(store: Store, unit: Unit, keep: bool) -> bool:
    """Return whether another run has completed the unit meanwhile."""
    if not isinstance(unit, FinalUnit):
        return is_done(store, unit)
    record = record_of(store, unit)
    return record is not None and record.status == "ok" and (not keep or is_kept(store, unit.fingerprint))


def _unmet(store: Store, unit: Unit) -> Outcome | None:
    """Return the outcome of a unit whose needs are not done, or None if they are."""
    for need in unit.needs:
        if not is_done(store, need):
            try:
                path = folder_of(store, need) / OUTCOME
                fields: dict[str, Any] = json.loads(path.read_bytes())
                files = tuple((str(name), str(text)) for name, text in fields["files"])
                return Outcome(fields["status"], fields["reason"], files, inherited=True)
            except (OSError, ValueError, KeyError, TypeError):
                return Outcome("waiting", f"{need} is not done")
    return None


class _ProgressFile:
    """A progress callback that also updates progress.json, and measures the run time."""

    def __init__(self, unit: Unit, store: Store, report: Progress) -> None:
        self._path = folder_of(store, unit) / PROGRESS
        self._report, self._begun, self._written = report, time.monotonic(), 0.0
        self._processor = time.process_time()
        self._first: int | None = None  # where work began or resumed
        self._facts: dict[str, Any] = {"unit": str(unit), "since": now()}
        self._unit = unit

    def __call__(self, done: int, total: int, /, **facts: float) -> None:
        self._first = done - 1 if self._first is None else self._first
        self._facts |= {"done": done, "total": total, **facts}
        if time.monotonic() - self._written > SAVED_EVERY_S:
            self._written = time.monotonic()
            write_atomic(self._path, json.dumps(self._facts).encode())
        self._report(done, total, **facts)

    def close(self) -> None:
        """Replace progress.json by spent.json, the run time of a finished unit."""
        self._path.unlink(missing_ok=True)
        log = self._path.with_name(LOG)
        if log.is_file() and not log.stat().st_size:
            log.unlink()
        seconds = time.monotonic() - self._begun
        done = self._facts.get("done", 0) - (self._first or 0)
        device, protocol = devices.device_of(self._unit.protocol), self._unit.protocol.name
        processor = seconds if device.is_gpu else time.process_time() - self._processor
        spent = {"seconds": round(seconds, 2), "processor_s": round(processor, 2), "work": done}
        spent |= {"by": paced_by(self._unit), "protocol": protocol, "device": device.name}
        write_atomic(self._path.with_name(SPENT), json.dumps(spent).encode())
