"""The harness: targets, protocols, training, tuning, runs and the command line."""

STOPPED = "stopped; what was finished is kept, and the same command goes on from there"


class BenchError(Exception):
    """The call is wrong or cannot be done here; the message says what, where and what to do."""


class StoppedEarlyError(Exception):
    """A run ended before all was done; what was finished is kept."""


class DivergedError(Exception):
    """The training loss is not finite."""
