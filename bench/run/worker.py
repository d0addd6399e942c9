"""A unit from its claim to its end: done once, whoever else is at it, and known to the store however it ends."""

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
from bench.train import provenance
from bench.train.loop import Progress, device_of
from pretrain_sources.sockets import shorten_socket_paths
from results.locks import HeldError, LocksError, locked
from results.record_files import write_record
from results.store import Store, StoreError, cannot_write, write_atomic

TOLD_EVERY_S = 5.0  # between two looks at a unit from elsewhere


def perform(unit: Unit, context: Context, report: Progress) -> Outcome:
    """Does a unit unless it is done, claimed, or cannot start. Raises for nothing but an interrupt."""
    from bench.train.stages import execute

    store = Store(context.store)
    folder = folder_of(store, unit)
    try:
        shorten_socket_paths()
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / CLAIM):
            if _has_ended(store, unit, context.keep):
                return Outcome("ok")
            if (unmet := _unmet(store, unit)) is not None:
                return settle(unit, context, unmet)
            told = _Told(unit, store, report)
            outcome = settle(unit, context, execute(unit, context, told))
            if outcome.status == "ok":
                told.close()
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
    """Leaves in the store how a unit ended: the record of a final, or what the units that need it should know.

    Raises:
        StoreError: it cannot be written.
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
        write_record(store, unfinished(unit, outcome.status, reason), extra=dict(outcome.files))  # type: ignore[arg-type]
    else:
        write_atomic(folder / OUTCOME, (json.dumps(asdict(outcome), indent=1) + "\n").encode())
    return outcome


def _has_ended(store: Store, unit: Unit, keep: bool) -> bool:
    """Whether there is nothing to do, because another run was quicker."""
    if not isinstance(unit, FinalUnit):
        return is_done(store, unit)
    record = record_of(store, unit)
    return record is not None and record.status == "ok" and (not keep or is_kept(store, unit.fingerprint))


def _unmet(store: Store, unit: Unit) -> Outcome | None:
    """How a unit ends whose needs are not met, or None where they are."""
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


def _device(unit: Unit) -> str:
    return provenance.device_name(device_of(unit.protocol))


class _Told:
    """A report that also goes to a file now and then, and knows how long the work took."""

    def __init__(self, unit: Unit, store: Store, report: Progress) -> None:
        self._path = folder_of(store, unit) / PROGRESS
        self._report, self._begun, self._written = report, time.monotonic(), 0.0
        self._first: int | None = None  # where it went on
        self._facts: dict[str, Any] = {"unit": str(unit), "since": now()}
        self._on = {"by": paced_by(unit), "protocol": unit.protocol.name, "device": _device(unit)}

    def __call__(self, done: int, total: int, /, **facts: float) -> None:
        self._first = done - 1 if self._first is None else self._first
        self._facts |= {"done": done, "total": total, **facts}
        if time.monotonic() - self._written > TOLD_EVERY_S:
            self._written = time.monotonic()
            write_atomic(self._path, json.dumps(self._facts).encode())
        self._report(done, total, **facts)

    def close(self) -> None:
        """What is left of it all when the unit is done: its time."""
        self._path.unlink(missing_ok=True)
        log = self._path.with_name(LOG)
        if log.is_file() and not log.stat().st_size:
            log.unlink()
        seconds = time.monotonic() - self._begun
        done = self._facts.get("done", 0) - (self._first or 0)
        spent = {"seconds": round(seconds, 2), "work": done} | self._on
        write_atomic(self._path.with_name(SPENT), json.dumps(spent).encode())
