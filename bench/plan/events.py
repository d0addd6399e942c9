"""What a run tells whoever watches."""

from typing import Protocol

from bench.plan.plan import Plan
from bench.plan.units import Unit
from bench.targets import Target


class Show(Protocol):
    """Is told of everything that happens in a run."""

    def checking(self, what: str, done: int, total: int) -> None:
        """So many of the files were read for the first time."""

    def noted(self, text: str) -> None:
        """Something that whoever watches should know."""

    def planned(self, plan: Plan, target: Target) -> None:
        """This is what there is to do, before it starts."""

    def started(self, unit: Unit) -> None:
        """A unit starts."""

    def progress(self, unit: Unit, done: int, total: int, /, **facts: float) -> None:
        """A unit has got so far, in about training steps; facts: its loss, or the val_miou of its last trial."""

    def finished(self, unit: Unit, status: str, reason: str | None) -> None:
        """A unit ended."""
