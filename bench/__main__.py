"""The `bench` command, also as `python -m bench`. It handles Ctrl-C before the slow imports begin."""

import os
import signal
from types import FrameType

from bench import STOPPED


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        from bench.cli import app

        app.main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would only print a traceback


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or exit at once during an import, which might swallow or replace the exception."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, f"{STOPPED}\n".encode())
            os._exit(3)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
