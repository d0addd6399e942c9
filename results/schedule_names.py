"""Names of schedules and of protocols with raised trials. Imports nothing, so that `bench --help` starts fast."""

from typing import Literal, get_args

ScheduleKind = Literal["tuned", "default"]
SCHEDULES: tuple[ScheduleKind, ...] = get_args(ScheduleKind)
TUNED: ScheduleKind = "tuned"
DEFAULT: ScheduleKind = "default"
TPE_FROM_TRIALS = 16  # from here on Optuna's TPE sampler proposes
TRIALS = "~trials-"  # suffix, with the number, of the name of a protocol whose trials a matrix raised


def split_name(protocol: str) -> tuple[str, int | None]:
    """Split the name of a protocol into that without the raised number of trials, and this number (None: not raised)."""
    name, mark, count = protocol.partition(TRIALS)
    digits = count if count.isascii() and count.isdigit() else ""
    return (name, int(digits)) if mark and digits and digits[0] != "0" and len(digits) < 6 else (protocol, None)
