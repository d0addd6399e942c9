"""What every unit of a run shares, and how a unit ends."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.targets import Target
from pretrain_sources.pool import Pool
from results.locks import HeldError
from results.record import Status


@dataclass(frozen=True)
class Context:
    """What every unit of a run shares."""

    store: Path
    target: Target
    weights: Path  # the user's folder of downloaded weights
    pool: Pool | None = None
    commit: str | None = None  # of the code, as it was when the run started
    keep: bool = False  # the finetuned networks too


@dataclass(frozen=True)
class Outcome:
    """How a unit ended. `busy`: another run is at it. `waiting`: what it needs is not done, and did not fail either.

    Attributes:
        files: (name, text) to keep beside the records of a failure. fatal: nothing more can be written. inherited: not its own,
            but that of a unit that it needs. died: with its process, so that it could not say so itself. again: it is not
            recorded, and the next run does the unit anew.
    """

    status: Status | Literal["busy", "waiting"]
    reason: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    fatal: bool = False
    inherited: bool = False
    died: bool = False
    again: bool = False


def held_by(error: HeldError) -> Outcome:
    """Somebody else is at it; a lock that a dead process has left is nothing to wait for."""
    return Outcome("failed", str(error), again=True) if error.dead else Outcome("busy", str(error))
