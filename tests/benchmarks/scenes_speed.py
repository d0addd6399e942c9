"""Frames a second that `bench data make scenes` renders and writes on one core, 240 x 320. Prints one line of JSON."""

import json
import os
import tempfile
import time
from pathlib import Path

from bench import scenes

FRAMES = 120


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        scenes.make(Path(folder) / "warm", 60, (64, 96))
        began = time.perf_counter()
        made = scenes.make(Path(folder) / "scenes", FRAMES, (240, 320))
        print(json.dumps({"frames_per_s": made / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
