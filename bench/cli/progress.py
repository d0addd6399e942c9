"""Progress of a run: a live display on a terminal, plain lines elsewhere. Loads no torch."""

import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from bench.plan.cost import work_of
from bench.plan.matrix import Matrix
from bench.plan.plan import Plan
from bench.plan.unit import KINDS
from bench.plan.unit_folder import folder_of
from bench.plan.units import Unit
from bench.targets import Target
from pretrain_sources.corpus import CorpusError, read_manifest
from results.escape import for_terminal
from results.record import FAILED_STATUSES, RETRIED
from results.store import Store

QUIET_S = 30.0  # between two plain progress lines
FEW = 3  # cells to name with the reason why they are skipped
SURE_S = 60.0  # of work before the remaining time is shown


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def skipped_lines(plan: Plan) -> Iterator[str]:
    """Describe the cells that cannot run here: each reason once, with the cells if there are few, else with the sources."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)  # reason -> cell -> source
    for unit, reason in plan.skipped:
        cells[reason][str(unit.cell)] = unit.cell.source
    for reason, sources in cells.items():
        yield f"  skipped {len(sources)} cell{'s' * (len(sources) > 1)}: {reason}"
        few = len(sources) <= FEW
        yield f"    {'cells' if few else 'sources'}: {', '.join(sources if few else dict.fromkeys(sources.values()))}"


@dataclass
class _Piece:
    """Progress of one unit."""

    kind: str
    total: int
    done: int = 0
    resumed: int = 0  # work already done by a killed call
    since: float | None = None  # start time
    spent: float = 0.0  # seconds until the last update

    def update(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self.spent = time.monotonic() - self.since if self.since is not None else 0.0


class Watch:
    """Show the progress of one run. Work is counted in training steps; predicting and scoring a frame counts as one."""

    def __init__(self, matrix: Matrix, store: Path) -> None:
        self.matrix = matrix
        self._store = store
        self._console = _console()
        self._live = _live(self._console, "steps") if self._console.is_terminal else None
        self._bars: dict[str, TaskID] = {}
        self._pieces: dict[str, _Piece] = {}  # by fingerprint
        self._running: set[str] = set()
        self._workers = 1  # most units running at once so far
        self._facts: dict[str, dict[str, float]] = {}  # fingerprint -> loss, val_miou
        self._units_left = 0
        self._started = self._spoke = time.monotonic()

    def display(self) -> AbstractContextManager[object]:
        """Keep this open during the run."""
        return self._live or nullcontext()

    def _say(self, text: str) -> None:
        self._console.print(for_terminal(text))

    # -- events of the run -------------------------------------------------------------------------------------------

    def checking(self, what: str, done: int, total: int) -> None:
        """Report that files are being read for the first time."""
        if done == 1 and total > 200:
            self._say(f"{what}: reading {total} files, once")

    def noted(self, text: str) -> None:
        """Print a note."""
        self._say(f"  {text}")

    def planned(self, plan: Plan, target: Target) -> None:
        """Print what is done, to do and skipped."""
        finals = sum(unit.kind == "final" for unit in plan.todo)
        self._say(
            f"{self.matrix.name}: {self.matrix.protocol.name} on {target.spec.name}, "
            f"{len(self.matrix.cells)} cells, {len(plan.finals)} runs"
        )
        for note in target.notes:
            self._say(f"  {target.spec.name}: {note}")
        if plan.todo:
            done = len(plan.finals) - finals - len(plan.skipped)
            self._say(f"  {finals} runs to do ({len(plan.todo)} units), {done} settled, {len(plan.skipped)} skipped")
        for line in skipped_lines(plan):
            self._say(line)
        self._units_left = len(plan.todo)
        self._pieces = {unit.fingerprint: _Piece(unit.kind, work_of(unit, target)) for unit in plan.todo}
        self._started = self._spoke = time.monotonic()
        if self._live:
            total = sum(piece.total for piece in self._pieces.values())
            self._bars["all"] = self._live.add_task("all", total=total, visible=bool(plan.todo))

    def started(self, unit: Unit) -> None:
        """A unit starts. Called again for a unit that another process was running, it prints once."""
        if unit.fingerprint in self._running:
            return
        piece = self._pieces[unit.fingerprint]
        piece.since = time.monotonic()
        self._running.add(unit.fingerprint)
        self._workers = max(self._workers, len(self._running))
        if self._live:
            self._bars[unit.fingerprint] = self._live.add_task(for_terminal(str(unit)), total=piece.total)
        else:
            self._say(f"started  {unit}")

    def progress(self, unit: Unit, done: int, total: int, /, **facts: float) -> None:
        """Update the progress of a unit."""
        piece = self._pieces[unit.fingerprint]
        if not piece.done:
            piece.resumed = done - 1
        piece.update(done, total)
        if self._live:
            self._facts[unit.fingerprint] = self._facts.get(unit.fingerprint, {}) | facts
            values = "".join(
                f"  {name.replace('_', ' ')} {value:.3f}" for name, value in self._facts[unit.fingerprint].items()
            )
            bar = self._bars[unit.fingerprint]
            self._live.update(bar, completed=done, total=total, description=for_terminal(f"{unit}{values}"))
            done_in_all = sum(piece.done for piece in self._pieces.values())
            self._live.update(self._bars["all"], completed=done_in_all, description=f"all: {self._left()}")
        elif time.monotonic() - self._spoke > QUIET_S:
            self._spoke = time.monotonic()
            self._say(f"running  {unit}, {done / max(1, total):.0%}; {self._left()}")

    def finished(self, unit: Unit, status: str, reason: str | None) -> None:
        """A unit ended."""
        piece = self._pieces[unit.fingerprint]
        piece.update(piece.total, piece.total)
        self._running.discard(unit.fingerprint)
        self._units_left -= 1
        if self._live and unit.fingerprint in self._bars:
            self._live.remove_task(self._bars.pop(unit.fingerprint))
        self._say(
            f"{'finished' if status == 'ok' else status:8} {unit}{f': {reason}' if reason else ''}; {self._left()}",
        )
        if unit.kind == "corpus" and status == "ok":
            for line in self._unused_lines(unit):
                self._say(f"  {line}")

    def _unused_lines(self, unit: Unit) -> list[str]:
        """Say what a corpus that was made does not use of its pool and its masks."""
        with suppress(CorpusError):
            manifest = read_manifest(folder_of(Store(self._store), unit))
            return manifest.unused_lines() if manifest else []
        return []

    def _left(self) -> str:
        seconds = self._seconds_left()
        expected = f", about {duration(seconds)}" if seconds else ""
        return f"{self._units_left} unit{'' if self._units_left == 1 else 's'} left{expected}"

    def _seconds_left(self) -> float | None:
        """Estimate from the pace of each kind, or of all kinds for one with less than SURE_S of work. None if unknown.

        Kinds are separate because an image of a corpus takes longer than a training step.
        """
        done = dict.fromkeys(map(str, KINDS), 0.0)
        spent = dict(done)
        for piece in self._pieces.values():
            done[piece.kind] += piece.done - piece.resumed if piece.since is not None else 0
            spent[piece.kind] += piece.spent
        if not self._units_left or sum(spent.values()) < SURE_S or not sum(done.values()):
            return None
        usual = sum(spent.values()) / sum(done.values())
        pace = {kind: spent[kind] / done[kind] if done[kind] and spent[kind] >= SURE_S else usual for kind in done}
        left = sum((piece.total - piece.done) * pace[piece.kind] for piece in self._pieces.values())
        return left / min(self._workers, self._units_left)

    # -- the end ---------------------------------------------------------------------------------------------------

    def closing(self, plan: Plan, *, queued: bool = False) -> int:
        """Print the outcome and what to do next; return the exit code. queued: a cluster runs what is left."""
        failed = plan.count(*FAILED_STATUSES)
        skipped = plan.count("skipped")
        left = len(plan.finals) - plan.count("ok") - failed - skipped  # their inputs changed during the run
        counts = f"{plan.count('ok')} runs done, {failed} failed, {skipped} skipped"
        if left:
            counts += f", {left} {'in the queue' if queued else 'still to do: run the same command again'}"
        where = "" if str(self._store) == "bench-store" else f" --store {self._store}"
        if self._pieces:
            self._say(f"took {duration(time.monotonic() - self._started)}: {counts}")
        else:
            self._say(f"nothing to do: {counts}. See them with `bench table{where}`")
        if failed:
            retry = ",".join(status for status in RETRIED if plan.count(status))
            again = f"; to repeat them: the same command with --retry {retry}" if retry else ""
            self._say(f"reasons: `bench status{where}`{again}")
        return 2 if failed or (left and not queued) else 0


@contextmanager
def counting(text: str, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for (done, total): a bar on a terminal, a line every QUIET_S elsewhere."""
    console, text = _console(), for_terminal(text)
    if console.is_terminal:
        with _live(console, what) as live:
            bar = live.add_task(text, total=None)
            yield lambda done, total: live.update(bar, completed=done, total=total)
        return
    spoke = time.monotonic()
    first: tuple[int, float] | None = None  # done, time: what a killed call left done is no measure of pace

    def print_line(done: int, total: int) -> None:
        nonlocal spoke, first
        now = time.monotonic()
        first = first or (done, now)
        if now - spoke > QUIET_S:
            spoke = now
            timed = done - first[0]
            left = f"; about {duration((now - first[1]) * (total - done) / timed)}" if timed > 0 else ""
            console.print(f"{text}, {done / total:.0%}{left}")

    yield print_line


class _Output:
    """Standard output that ignores write errors, so that the work continues without it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        with self._surviving():
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with self._surviving():
            self._file.flush()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
                print(f"bench: standard output is gone ({error.strerror}); the run continues", file=sys.stderr)


def _output() -> IO[str]:
    return cast(IO[str], _Output(sys.stdout))


def _console() -> Console:
    """A console that prints text as it is: no markup, no emoji, no highlighting."""
    return Console(file=_output(), highlight=False, markup=False, emoji=False, soft_wrap=True)


def _live(console: Console, what: str) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
    )
    return Progress(*columns, console=console)
