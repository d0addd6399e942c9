"""Number of usable processor cores. Does not import torch."""

import os


def cores() -> int:
    """Return the number of cores that this process may use, on a cluster fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
