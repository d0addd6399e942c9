"""Units as jobs of a Slurm cluster, submitted with submitit: job arrays for each stage, started after the previous stage ends.

No process has to stay alive for them: a job locks its unit, checks its needs, and leaves the result or the reason of a failure
in the store. A job that is preempted or times out is requeued and resumes from its checkpoint.
"""

import io
import json
import pickle
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.plan.outcome import Context
from bench.plan.unit import KINDS
from bench.plan.units import Unit
from bench.run.executors import LOOK_AGAIN_S
from pretrain_sources.hashing import fingerprint
from results.escape import for_terminal
from results.store import Store, write_atomic

MINUTES = 24 * 60  # of a job, unless `time` says otherwise
REQUEUES = 1000  # after timeouts
Jobs = dict[str, str]  # fingerprint of a unit -> job
Options = Mapping[str, str]  # sbatch's long name, with _ for - -> value

OPTION = re.compile(r"\s*([A-Za-z][\w-]*)=(.+)", re.DOTALL)
OTHER_NAMES = {"throttle": "array_parallelism"}  # running jobs of an array
SET_HERE = ("array", "error", "open_mode", "output", "parsable", "signal", "test_only", "wait", "wrap")
FLAGS = {"true": True, "yes": True, "false": False, "no": False}


def options_of(texts: Iterable[str]) -> dict[str, str]:
    """Parse `partition=gpu,time=8:00:00`, `exclude=n1,n2` and so on into one mapping.

    A comma ends a value if KEY= follows; quotes work as in a shell.

    Raises:
        BenchError: an option is not KEY=VALUE, is a duplicate, or is reserved for bench.
    """
    options: dict[str, str] = {}
    for text in texts:
        for part in _parts(text):
            match = OPTION.fullmatch(part)
            if match is None:
                raise BenchError(
                    f"--slurm {part}: options must be KEY=VALUE, as for sbatch: partition=gpu,time=8:00:00"
                )
            name = match[1].replace("-", "_")
            name = OTHER_NAMES.get(name, name)
            if name in options:
                raise BenchError(f"--slurm {match[1]}: duplicate option")
            if name in SET_HERE:
                raise BenchError(f"--slurm {match[1]}: reserved, bench sets this option")
            options[name] = match[2]
    _parameters(options)  # raises for invalid values
    return options


def _parts(text: str) -> list[str]:
    """Split into KEY=VALUE; a piece between commas that does not begin with KEY= belongs to the previous value."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ",", True, ""
    parts: list[str] = []
    try:
        for piece in lexer:
            if parts and not re.match(r"\s*[A-Za-z][\w-]*=", piece):
                parts[-1] += f",{piece}"
            elif piece.strip():
                parts.append(piece.strip())
    except ValueError as error:
        raise BenchError(f"--slurm {text}: {str(error).lower()}; quote as in a shell") from error
    return parts


def submit(units: Sequence[Unit], context: Context, options: Options) -> tuple[Jobs, int]:
    """Submit units; return (submitted jobs, number of units already queued). All stages are queued, or none.

    Raises:
        BenchError: Slurm is missing or refuses the jobs.
    """
    if shutil.which("sbatch") is None:
        raise BenchError("no sbatch on this machine: run --executor slurm on a login node of a cluster")
    try:
        import submitit
    except ImportError as error:
        raise BenchError("submitit is missing; install it with: pip install 'satir-bench[slurm]'") from error
    folder = Store(context.store).root / "slurm"
    known = _queued(folder)
    fresh = [unit for unit in units if unit.fingerprint not in known]
    size = _array_size()
    data = pickle.dumps(context)
    place = folder / f"context-{fingerprint(data.hex())[:16]}.pkl"  # stored once for all jobs: it lists every frame
    write_atomic(place, data)
    try:
        executor = submitit.SlurmExecutor(folder / "jobs", max_num_timeout=REQUEUES)
    except RuntimeError as error:
        raise BenchError(f"submitit finds no Slurm here: {error}") from error
    made: Jobs = {}
    before: list[str] = [job.split("_")[0] for job in known.values()]
    with _all_or_none(folder, known, made):
        for kind in KINDS:
            stage = [unit for unit in fresh if unit.kind == kind]
            arrays: list[str] = []
            for begin in range(0, len(stage), size):
                part = stage[begin : begin + size]
                executor.update_parameters(**_parameters(options, part[0], before))
                jobs = _sent(executor, place, part)
                made |= zip((unit.fingerprint for unit in part), jobs, strict=True)
                arrays.append(jobs[0].split("_")[0])
                write_atomic(folder / "jobs.json", json.dumps(known | made).encode())
            before = arrays or before
    return made, len(known)


def _sent(executor: Any, place: Path, part: Sequence[Unit]) -> list[str]:  # noqa: ANN401
    """Submit these units; return their jobs."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with redirect_stderr(io.StringIO()):  # submitit also prints its errors
            jobs = executor.map_array(Job(), [str(place)] * len(part), part)
    except (FailedJobError, FailedSubmissionError) as error:
        raise BenchError(f"Slurm refused the jobs: {' '.join(str(error).split())}") from error
    return [str(job.job_id) for job in jobs]


@contextmanager
def _all_or_none(folder: Path, known: Jobs, made: Jobs) -> Iterator[None]:
    """Cancel the jobs in `made` if not all jobs could be submitted."""
    try:
        yield
    except BaseException as error:  # Ctrl-C too
        result = _cancel(sorted({job.split("_")[0] for job in made.values()}))
        if made:
            write_atomic(folder / "jobs.json", json.dumps(known).encode())
        if isinstance(error, BenchError):
            raise BenchError(f"{error}. {result}") from error
        raise


def _cancel(arrays: Sequence[str]) -> str:
    """Cancel job arrays; return a message with the result."""
    if not arrays:
        return "Nothing was queued"
    done = subprocess.run(["scancel", *arrays], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"Jobs {', '.join(arrays)} are queued and could not be cancelled: {' '.join(done.stderr.split())}"
    return f"Jobs {', '.join(arrays)} were cancelled; nothing is left in the queue"


def _array_size() -> int:
    """Return the maximum array size of this cluster.

    Raises:
        BenchError: the cluster does not report it.
    """
    shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown.stdout, re.MULTILINE)  # the largest index is one less
    if match is None:
        raise BenchError(
            f"`scontrol show config` reports no MaxArraySize: {' '.join(shown.stderr.split()) or 'no answer'}"
        )
    return max(1, int(match[1]))


class Job:
    """The function of a job; called again with the same arguments after a requeue."""

    def __call__(self, context: str, unit: Unit) -> str:
        """Run a unit and return its status."""
        from bench.run.worker import perform

        shared: Context = pickle.loads(Path(context).read_bytes())
        reason = None
        while (outcome := perform(unit, shared, _ignore_progress)).status == "busy":
            if outcome.reason != reason:
                print(f"waiting for {unit}: {(reason := outcome.reason)}", flush=True)
            time.sleep(LOOK_AGAIN_S)
        print(for_terminal(f"{unit} {outcome.status} {outcome.reason or ''}"))
        return str(outcome.status)

    def checkpoint(self, context: str, unit: Unit) -> Any:  # noqa: ANN401
        """Return the job to submit after a preemption or timeout: the same, which resumes from the unit's checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, context, unit)


def _ignore_progress(done: int, total: int, /, **facts: float) -> None:
    """Discard progress; `bench status` reads it from the store."""


def _parameters(options: Options, unit: Unit | None = None, after: Sequence[str] = ()) -> dict[str, Any]:
    """Return the parameters of submitit's executor; options unknown to it are passed to sbatch unchanged.

    Raises:
        BenchError: a value has the wrong type for submitit.
    """
    own: dict[str, Any] = {"time": MINUTES, "job_name": f"bench-{unit.kind}" if unit else "bench"}
    own |= {"cpus_per_task": unit.protocol.threads} if unit else {}
    extra: dict[str, Any] = {}
    for name, value in options.items():
        if name in OF_SUBMITIT:
            own[name] = OF_SUBMITIT[name](name, value)
        elif (flag := FLAGS.get(value.lower(), value)) is not False:
            extra[name] = flag
    waits = [f"afterany:{':'.join(after)}"] if after else []
    waits += [extra.pop("dependency")] if "dependency" in extra else []
    return own | {"dependency": ",".join(waits) or None, "additional_parameters": extra}


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", value):
        raise BenchError(f"--slurm {name}={value}: must be a number, at least 1")
    return int(value)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in FLAGS:
        raise BenchError(f"--slurm {name}={value}: must be true or false")
    return FLAGS[value.lower()]


def minutes(text: str) -> int:
    """Convert MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS or DAYS-HOURS[:MINUTES[:SECONDS]] to minutes, at least one.

    Raises:
        BenchError: the text has none of these forms.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise BenchError(f"--slurm time={text}: write 8:00:00, 90 (minutes) or 1-12 (days-hours)")
    days, *parts = (int(part) if part else None for part in match.groups())
    if days is not None:
        hours, mins, secs = (part or 0 for part in parts)
    elif parts[2] is not None:
        hours, mins, secs = parts[0] or 0, parts[1] or 0, parts[2]
    else:
        hours, mins, secs = 0, parts[0] or 0, parts[1] or 0
    return max(1, (days or 0) * 1440 + hours * 60 + mins + (secs > 0))


def _queued(folder: Path) -> Jobs:
    """Return the jobs of earlier calls that are still in the queue."""
    try:
        jobs: Jobs = json.loads((folder / "jobs.json").read_bytes())
    except (OSError, ValueError):
        return {}
    words = ["squeue", "--noheader", "--array", "--format=%i"]
    listing = subprocess.run(words, capture_output=True, text=True, check=False)
    if listing.returncode:
        raise BenchError(f"squeue failed: {listing.stderr.strip()}")
    alive = set(listing.stdout.split())
    return {unit: job for unit, job in jobs.items() if job in alive}


OF_SUBMITIT: Mapping[str, Callable[[str, str], Any]] = {  # options that submitit handles, or that sbatch does not have
    "time": lambda name, value: minutes(value),
    **dict.fromkeys(("nodes", "ntasks_per_node", "array_parallelism", "signal_delay_s"), _number),
    **dict.fromkeys(("stderr_to_stdout", "use_srun"), _flag),
    **dict.fromkeys(("setup", "teardown"), lambda name, value: [value]),  # lines of the job script
    "srun_args": lambda name, value: shlex.split(value),
}
