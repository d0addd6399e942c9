"""The shared context of a run, and the outcome of a unit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.targets import Target
from pretrain_sources.pool import Pool
from results.locks import HeldError
from results.record import Status


@dataclass(frozen=True)
class Context:
    """Shared by all units of a run."""

    store: Path
    target: Target
    weights: Path  # the user's folder of downloaded weights
    pool: Pool | None = None
    commit: str | None = None  # of the code, at the start of the run
    keep: bool = False  # keep the finetuned networks
    code: tuple[Path, ...] = ()  # folders of the user's own backbones


@dataclass(frozen=True)
class Outcome:
    """The outcome of a unit. `busy`: another run holds its lock. `waiting`: a needed unit is neither done nor failed.

    Attributes:
        files: (name, text) to store with the record of a failure. fatal: the store cannot be written. inherited: the outcome
            of a needed unit. died: the worker process died without reporting. again: not recorded; the next run repeats the unit.
    """

    status: Status | Literal["busy", "waiting"]
    reason: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    fatal: bool = False
    inherited: bool = False
    died: bool = False
    again: bool = False


def held_by(error: HeldError) -> Outcome:
    """Return the outcome for a locked unit: busy, or failed if the process that holds the lock is dead."""
    return Outcome("failed", str(error), again=True) if error.dead else Outcome("busy", str(error))
