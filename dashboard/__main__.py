"""Serves the leaderboard of BENCH_STORE: `python -m dashboard [streamlit's settings]`; `bench dashboard` calls it.

The store is read and the pages' code is loaded before the server is up, so that the first look is quick.
"""

import contextlib
import logging
import sys
from pathlib import Path

logging.getLogger("streamlit").setLevel(logging.ERROR)  # it warns of caches that are filled before there is a page

from streamlit.web.cli import main  # noqa: E402

from dashboard import reading, views  # noqa: E402, F401

if __name__ == "__main__":
    with contextlib.suppress(reading.NothingToShow):  # the page will say it
        reading.read()
    sys.argv = ["streamlit", "run", str(Path(__file__).with_name("app.py")), *sys.argv[1:]]
    main()
