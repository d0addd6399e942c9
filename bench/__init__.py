"""The harness: targets, protocols, training, tuning, runs and the command line."""

STOPPED = "stopped: finished work is kept; run the same command again to continue"


class BenchError(Exception):
    """A command is wrong or cannot run here; the message says what, where and what to do."""


class StoppedEarlyError(Exception):
    """A run stopped before all units were done; finished work is kept."""


class DivergedError(Exception):
    """The training loss is not finite."""
