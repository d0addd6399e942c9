"""Processes that end with their parent. Importing this module ties the process to the one named in `SERVES`.

The fork server imports it first (`PRELOADED`): it then spends seconds on importing torch, during which it does not notice that
its parent is gone.
"""

import ctypes
import os
import signal
import sys

PRELOADED = "bench.run.parent"
SERVES = "BENCH_SERVES"  # environment variable: the process with which the fork server has to end
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; exit at once if the parent has changed. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if (served := os.environ.pop(SERVES, "")).isdigit():
    end_with_parent(int(served))
