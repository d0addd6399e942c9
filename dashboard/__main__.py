"""Serves the leaderboard of BENCH_STORE: `python -m dashboard [JSON]`; `bench dashboard` calls it.

The store is read and the pages' code is loaded before the server is up, so that the first look is quick. JSON: the fields of
`Address`, and `browser`, whether to open one.
"""

import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dashboard.address import Address, AddressError, KnownHosts

SETTINGS = {
    "browser.gatherUsageStats": False,
    "server.fileWatcherType": "none",
    "client.toolbarMode": "viewer",
    "server.showEmailPrompt": False,
    "logger.hideWelcomeMessage": True,  # it offers to install things
    "server.headless": True,
    "client.showErrorDetails": "none",  # what goes wrong here is told here: it names paths of this machine
}


def main(browser: bool = False, names: tuple[str, ...] = (), **where: Any) -> None:  # noqa: ANN401
    """Serves until it is stopped.

    Raises:
        AddressError: nothing can be served there; no address was printed.
    """
    address = Address(names=tuple(names), **where)
    address.check()
    import streamlit as st
    from starlette.middleware import Middleware
    from streamlit.cli_util import open_browser
    from streamlit.runtime.scriptrunner_utils import script_run_context

    from dashboard import store_cache, views  # noqa: F401

    # it warns of caches that are filled before there is a page
    logging.getLogger(script_run_context.__name__).setLevel(logging.ERROR)

    @contextlib.asynccontextmanager
    async def told(_: st.App) -> AsyncIterator[dict[str, Any] | None]:
        """Says where it is once the port is bound."""
        url = address.url(int(st.get_option("server.port")))
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        if browser:
            open_browser(url)
        yield None

    with contextlib.suppress(store_cache.NothingToShowError):  # the page will say it
        store_cache.read()
    page = Path(__file__).with_name("app.py")
    app = st.App(page, middleware=[Middleware(KnownHosts, address=address)], lifespan=told)
    served = {"server.address": address.host, "server.port": address.port, "server.baseUrlPath": address.base_path}
    served |= {
        "server.corsAllowedOrigins": [f"https://{name}" for name in address.names]
    }  # a proxy may change the Host
    with contextlib.suppress(KeyboardInterrupt):
        app.run(config=SETTINGS | served)


if __name__ == "__main__":
    try:
        main(**json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    except AddressError as error:
        sys.exit(f"bench: {error}")
