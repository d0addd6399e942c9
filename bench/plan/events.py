"""Events of a run, for progress displays."""

from typing import Protocol

from bench.plan.plan import Plan
from bench.plan.units import Unit
from bench.targets import Target


class Show(Protocol):
    """Receives the events of a run."""

    def checking(self, what: str, done: int, total: int) -> None:
        """Files are being checked; counts only files that are read."""

    def noted(self, text: str) -> None:
        """A note for the user."""

    def planned(self, plan: Plan, target: Target) -> None:
        """The plan is made; no unit has started."""

    def started(self, unit: Unit) -> None:
        """A unit started."""

    def progress(self, unit: Unit, done: int, total: int, /, **facts: float) -> None:
        """Progress of a unit, in estimated training steps; facts: its loss, or the val_miou of its last trial."""

    def finished(self, unit: Unit, status: str, reason: str | None) -> None:
        """A unit ended."""
