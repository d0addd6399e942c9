"""Units as jobs of a Slurm cluster: an array a stage, each after the one before, whatever became of it; sent with submitit.

Nothing has to stay alive for them: a job claims its unit, looks whether what it needs is there, and leaves the result or the
reason in the store. A job that is preempted or runs out of time is put back into the queue and goes on from its checkpoint.
"""

import json
import pickle
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.executors import LOOK_AGAIN_S
from bench.units import KINDS, Context, Unit
from pretrain_sources.identity import fingerprint
from results.escape import for_terminal
from results.store import Store, write_atomic

ARRAY = 1000  # jobs of an array; clusters allow 1,001 unless they say otherwise
MINUTES = 24 * 60  # of a job, unless `time` says otherwise
REQUEUES = 1000  # for want of time
Jobs = dict[str, str]  # fingerprint of a unit -> job


def options_of(text: str) -> dict[str, str]:
    """`partition=gpu,time=8:00:00,gres=gpu:1` as a mapping.

    Raises:
        BenchError: a part is not KEY=VALUE.
    """
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if wrong := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise BenchError(f"--slurm {wrong[0]}: options are KEY=VALUE, as sbatch has them: partition=gpu,time=8:00:00")
    return {name.replace("-", "_"): value for name, _, value in pairs}


def submit(units: Sequence[Unit], context: Context, options: Mapping[str, str]) -> tuple[Jobs, int]:
    """(jobs that were submitted, how many units are in the queue already).

    Raises:
        BenchError: there is no Slurm here, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise BenchError("there is no sbatch on this machine: --executor slurm is for a login node of a cluster")
    try:
        import submitit
    except ImportError as error:
        raise BenchError("submitit is missing: pip install --editable '.[slurm]' in the checkout") from error
    folder = Store(context.store).root / "slurm"
    known = _queued(folder)
    fresh = [unit for unit in units if unit.fingerprint not in known]
    data = pickle.dumps(context)
    place = folder / f"context-{fingerprint(data.hex())[:16]}.pkl"  # once: it names every frame
    write_atomic(place, data)
    executor = submitit.SlurmExecutor(folder / "jobs", max_num_timeout=REQUEUES)
    made: Jobs = {}
    before: list[str] = [job.split("_")[0] for job in known.values()]
    for kind in KINDS:
        stage = [unit for unit in fresh if unit.kind == kind]
        arrays: list[str] = []
        for begin in range(0, len(stage), ARRAY):
            part = stage[begin : begin + ARRAY]
            executor.update_parameters(**_parameters(part[0], options, before))
            try:
                jobs = executor.map_array(Job(), [str(place)] * len(part), part)
            except submitit.core.utils.FailedJobError as error:
                raise BenchError(f"Slurm refused the jobs: {' '.join(str(error).split())}") from error
            made |= {unit.fingerprint: job.job_id for unit, job in zip(part, jobs, strict=True)}
            arrays.append(jobs[0].job_id.split("_")[0])
            write_atomic(folder / "jobs.json", json.dumps(known | made).encode())
        before = arrays or before
    return made, len(known)


class Job:
    """What a job runs; called again with the same arguments after it was requeued."""

    def __call__(self, context: str, unit: Unit) -> str:
        """The status that the unit ended with."""
        from bench.work import perform

        held: Context = pickle.loads(Path(context).read_bytes())
        while (outcome := perform(unit, held, _unheard)).status == "busy":
            time.sleep(LOOK_AGAIN_S)
        print(for_terminal(f"{unit} {outcome.status} {outcome.reason or ''}"))
        return str(outcome.status)

    def checkpoint(self, context: str, unit: Unit) -> Any:  # noqa: ANN401
        """What to submit when the job is preempted or out of time: the same, which goes on from the unit's own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, context, unit)


def _unheard(done: int, total: int, /, **facts: float) -> None:
    """A job tells nobody; `bench status` reads the store."""


def _parameters(unit: Unit, options: Mapping[str, str], after: Iterable[str]) -> dict[str, Any]:
    """What submitit's executor takes; what it does not know goes to sbatch as it is."""
    from submitit.slurm import slurm

    known = set(signature(slurm._make_sbatch_string).parameters)
    own: dict[str, Any] = {"time": MINUTES, "cpus_per_task": unit.protocol.threads, "job_name": f"bench-{unit.kind}"}
    extra: dict[str, Any] = {}
    for name, value in options.items():
        (own if name in known else extra)[name] = minutes(value) if name == "time" else value
    own["dependency"] = f"afterany:{':'.join(after)}" if after else None
    return own | {"additional_parameters": extra}


def minutes(text: str) -> int:
    """Slurm's MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS or DAYS-HOURS[:MINUTES[:SECONDS]] in minutes, at least one.

    Raises:
        BenchError: it is none of them.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if found is None:
        raise BenchError(f"--slurm time={text}: write 8:00:00, 90 (minutes) or 1-12 (days-hours)")
    days, *parts = (int(part) if part else None for part in found.groups())
    if days is not None:
        hours, mins, secs = (part or 0 for part in parts)
    elif parts[2] is not None:
        hours, mins, secs = parts[0] or 0, parts[1] or 0, parts[2]
    else:
        hours, mins, secs = 0, parts[0] or 0, parts[1] or 0
    return max(1, (days or 0) * 1440 + hours * 60 + mins + (secs > 0))


def _queued(folder: Path) -> Jobs:
    """The jobs of earlier calls that Slurm has not finished with."""
    try:
        jobs: Jobs = json.loads((folder / "jobs.json").read_bytes())
    except (OSError, ValueError):
        return {}
    words = ["squeue", "--noheader", "--array", "--format=%i"]
    listing = subprocess.run(words, capture_output=True, text=True, check=False)
    if listing.returncode:
        raise BenchError(f"squeue does not answer: {listing.stderr.strip()}")
    alive = set(listing.stdout.split())
    return {unit: job for unit, job in jobs.items() if job in alive}
