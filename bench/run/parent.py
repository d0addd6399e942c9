"""A process that does not outlive the one that started it. Importing this module ties the process that imports it, if told to.

The fork server imports it before anything else (`PRELOADED`): it spends seconds on importing torch, during which it does not
look whether anybody is left to work for.
"""

import ctypes
import os
import signal
import sys

PRELOADED = "bench.run.parent"
SERVES = "BENCH_SERVES"  # for the fork server: the process that it has to end with
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def end_with_parent(parent: int) -> None:
    """This process is killed when its parent ends; at once where that has another number by now. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if (served := os.environ.pop(SERVES, "")).isdigit():
    end_with_parent(int(served))
