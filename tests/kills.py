"""Kill a matrix repeatedly: a few times in tests, often in `make stress`."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from conftest import write_matrix

from bench.plan.unit_folder import SPENT
from results import load_table

MEASURED = ("miou", "weighted_f", "weights_sha256", "schedule", "tuned_val_miou", "pretrain_loss", "heldout_loss")


def matrix(
    folder: Path, sources: tuple[str, ...] = ("none", "none/long", "satir/felzenszwalb"), replicates: int = 2
) -> Path:
    """Write a matrix on the smallest network; all three sources have 12 units, including a corpus and pretrainings."""
    return write_matrix(folder, sources, finetune_steps=30, pretrain_steps=60, max_frames=12, replicates=replicates)


def command(path: Path, store: Path, data: Path, *words: str) -> list[str]:
    """Return the command of `bench run` as a separate process."""
    run = [sys.executable, "-c", "from bench.__main__ import main; main()", "run", "--matrix", str(path)]
    return [*run, "--store", str(store), "--data", str(data), *words]


def environment() -> dict[str, str]:
    """Return the environment of that process: this checkout before an installed one."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}


def killed(words: list[str], seconds: float) -> bool:
    """Kill a command and its workers after some seconds; return False if it had ended by then."""
    running = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True
    )
    try:
        running.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return True
    return False


def killed_at(words: list[str], moment: Callable[[], bool], patience: float = 120.0) -> None:
    """Kill a command and its workers as soon as `moment` is true.

    Raises:
        AssertionError: the command ended first, or `moment` was never true.
    """
    running = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True
    )
    end = time.monotonic() + patience
    try:
        while not moment():
            assert running.poll() is None, "the command ended first"
            assert time.monotonic() < end, "timeout"
            time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


READY = "ready\n"  # printed once Python itself has started


def interrupted(words: list[str], seconds: float, grace: float = 3.0) -> tuple[int, str, list[str]]:
    """Send Ctrl-C after some seconds; return (exit code, output, processes alive `grace` seconds after the end)."""
    begun = [words[0], words[1], f"print({READY!r}, end='', flush=True); {words[2]}", *words[3:]]
    running = subprocess.Popen(
        begun, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(), start_new_session=True, text=True
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == READY
        time.sleep(seconds)
        os.killpg(running.pid, signal.SIGINT)  # to the whole process group, as a terminal does
        running.wait(30)
        deadline = time.monotonic() + grace
        while (alive := session(running.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # remaining processes would hold the pipe
    return running.returncode, running.communicate()[0], alive


def session(leader: int) -> list[str]:
    """Return the commands of the live processes in the session of a process."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = (folder / "stat").read_text().rpartition(")")
            state, _, _, of = rest.split()[:4]
            if int(of) == leader and state != "Z":
                alive.append(f"{name}) {(folder / 'cmdline').read_text()[-100:]}")
    return alive


def finished(store: Path) -> dict[Path, int]:
    """Return the time at which each unit was finished; a repetition would change it."""
    return {path.relative_to(store): path.stat().st_mtime_ns for path in store.glob(f"units/*/*/{SPENT}")}


def table(store: Path) -> pd.DataFrame:
    """Return all results in a fixed order."""
    runs = load_table(store)
    assert (runs["status"] == "ok").all(), runs[["source", "replicate", "status", "reason"]].to_string()
    return runs.sort_values("run").set_index("run")[list(MEASURED)]


def killed_often(times: int, folder: Path, data: Path) -> list[float]:
    """Kill a local run of the matrix several times and finish it; return the moments, in seconds after each start.

    Raises:
        AssertionError: the table differs from an uninterrupted run, or a finished unit was repeated.
    """
    path = matrix(folder)
    began = time.monotonic()
    subprocess.run(
        command(path, folder / "whole", data, "--jobs", "2"), env=environment(), check=True, capture_output=True
    )
    whole = time.monotonic() - began
    dice, moments, broken, before = random.Random(), list[float](), folder / "broken", dict[Path, int]()
    while len(moments) < times:
        moment = dice.uniform(0.1, 0.9) * whole
        if not killed(command(path, broken, data, "--jobs", "2"), moment):
            break  # it finished first
        moments.append(round(moment, 2))
        after = finished(broken) if broken.exists() else {}
        assert before.items() <= after.items(), "a finished unit was repeated"
        before = after
        time.sleep(1)  # workers may be in the middle of a step
    done = subprocess.run(
        command(path, broken, data, "--jobs", "2"), env=environment(), check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert before.items() <= finished(broken).items(), "a finished unit was repeated"
    pd.testing.assert_frame_equal(table(broken), table(folder / "whole"))
    return moments
