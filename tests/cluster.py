"""A real Slurm of one node on loopback, started for tests: munged, slurmctld and slurmd, all of their files in one folder."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=1,requeue_delay=1
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=2
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
MaxArraySize=2
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def obstacle() -> str | None:
    """Return why Slurm cannot be started here, or None."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"missing {', '.join(missing)}: apt-get install slurm-wlm munge"
    return "Slurm's daemons need root" if os.geteuid() else None


class Cluster:
    """The daemons of a test cluster. Slurm's commands need SLURM_CONF to point to `conf`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        self.host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        control, node = _free_ports()
        self.conf.write_text(CONF.format(host=self.host, folder=folder, control=control, node=node))

    def up(self) -> None:
        """Start the daemons and wait for the node.

        Raises:
            RuntimeError: no answer within a minute.
        """
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        own = {name: self.folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        words = [f"--{'socket' if name == 'socket' else name + '-file'}={path}" for name, path in own.items()]
        run("munged", "--force", f"--key-file={key}", *words)
        self.start_controller()
        run("slurmd", "-f", str(self.conf))
        self.wait_for("idle", "mixed", "allocated")

    def down(self) -> None:
        """End the daemons and all jobs."""
        subprocess.run(["scancel", "--user=root"], check=False, capture_output=True)
        for name in ("slurmctld.pid", "slurmd.pid", "munge.pid"):
            path = self.folder / name
            if path.is_file():
                subprocess.run(["kill", "-9", path.read_text().strip()], check=False, capture_output=True)

    def start_controller(self) -> None:
        """Start slurmctld, which restores its state from disk."""
        run("slurmctld", "-f", str(self.conf))

    def kill_controller(self) -> None:
        """Simulate a crash of the head node."""
        run("kill", "-9", (self.folder / "slurmctld.pid").read_text().strip())

    def wait_for(self, *states: str, seconds: float = 60) -> None:
        """Wait until the node is in one of these states."""
        end = time.monotonic() + seconds
        while (state := self.state()) not in states:
            if time.monotonic() > end:
                log = (self.folder / "slurmctld.log").read_text()[-2000:]
                raise RuntimeError(f"the node is '{state}', not {' or '.join(states)}:\n{log}")
            time.sleep(0.5)

    def state(self) -> str:
        """Return the node's state from sinfo; empty if the controller does not answer."""
        return subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False
        ).stdout.strip()

    def jobs(self) -> list[str]:
        """Return the running and waiting jobs."""
        return run("squeue", "--noheader", "--array", "--format=%i").split()

    def wait_until_empty(self, seconds: float = 300) -> None:
        """Wait for all jobs to end.

        Raises:
            RuntimeError: jobs remain after the timeout.
        """
        end = time.monotonic() + seconds
        while left := self.jobs():
            if time.monotonic() > end:
                raise RuntimeError(f"{len(left)} jobs remain:\n{run('squeue')}")
            time.sleep(0.5)


def run(*words: str) -> str:
    """Run a program and return its output.

    Raises:
        RuntimeError: the program failed; includes its output.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr or done.stdout}")
    return done.stdout


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster, with SLURM_CONF set for this process and its children."""
    before = os.environ.get("SLURM_CONF")
    made = Cluster(folder)
    os.environ["SLURM_CONF"] = str(made.conf)
    try:
        made.up()
        yield made
    finally:
        made.down()
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def _free_ports() -> Sequence[int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
