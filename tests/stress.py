"""`make stress`: 20 kills of a local run and 20 disturbances of Slurm; the tables must equal those of an undisturbed run.

python tests/stress.py [local|slurm] [--times N]    needs root and slurm-wlm, munge for the second part
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from cluster import Cluster, cluster, obstacle, run
from conftest import make_scenes
from kills import command, environment, finished, killed_often, matrix, table

TRIES = 12  # calls after the last disturbance until all is done


def local(times: int, data: Path, folder: Path) -> None:
    """Kill a run again and again."""
    moments: list[float] = []
    while len(moments) < times:
        moments += killed_often(times - len(moments), folder / f"local-{len(moments)}", data)
        print(
            f"local: {len(moments)} kills, same table, nothing done twice; seconds after the start: {moments}",
            flush=True,
        )


def slurm(times: int, data: Path, folder: Path) -> None:
    """Cancel jobs, take the node down, kill the controller."""
    path = matrix(folder)
    subprocess.run(command(path, folder / "whole", data), env=environment(), check=True, capture_output=True)
    done, part = dict.fromkeys(("scancel", "node down", "slurmctld killed"), 0), 0
    with cluster(folder / "slurm") as made:
        while sum(done.values()) < times:
            store, part = folder / f"jobs-{part}", part + 1
            _disturbed(made, command(path, store, data, "--executor", "slurm"), store, done, times)
            pd.testing.assert_frame_equal(table(store), table(folder / "whole"))
            print(f"slurm: {done}, same table, nothing done twice", flush=True)


def _disturbed(made: Cluster, words: list[str], store: Path, done: dict[str, int], times: int) -> None:
    """Fill one store by submitting until nothing is left, with disturbances between."""
    before, calls = dict[Path, int](), 0
    while calls < TRIES + times:
        result = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        calls += 1
        if "nothing to do" in result.stdout:
            return
        while made.jobs():
            time.sleep(random.uniform(1, 12))
            if sum(done.values()) < times and made.jobs():
                done[_disturb(made, random.choice(list(done)))] += 1
            after = finished(store)
            assert before.items() <= after.items(), "a finished unit was done again"
            before = after
    raise AssertionError(f"not done after {calls} calls:\n{result.stdout}")


def _disturb(made: Cluster, kind: str) -> str:
    """Disturb the cluster and wait until it works again; return the kind."""
    if kind == "scancel":
        run("scancel", random.choice(made.jobs() or ["0"]))
    elif kind == "node down":
        run("scontrol", "update", f"nodename={made.host}", "state=down", "reason=stress")
        time.sleep(1)
        # fails if the node is back already; wait_for below checks that it is
        subprocess.run(
            ["scontrol", "update", f"nodename={made.host}", "state=resume"], capture_output=True, check=False
        )
    else:
        made.kill_controller()
        time.sleep(2)
        made.start_controller()
    made.wait_for("idle", "mixed", "allocated")
    return kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["local", "slurm"])
    parser.add_argument("--times", type=int, default=20)
    args = parser.parse_args()
    if args.part != "local" and (why := obstacle()):
        sys.exit(why)
    with tempfile.TemporaryDirectory() as name:
        make_scenes(Path(name) / "data")
        for part, stressed in (("local", local), ("slurm", slurm)):
            if args.part in (None, part):
                stressed(args.times, Path(name) / "data", Path(name) / part)


if __name__ == "__main__":
    main()
