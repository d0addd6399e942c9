"""Serve the leaderboard of BENCH_STORE: `python -m dashboard [JSON]`, called by `bench dashboard`.

The store is read and the pages are imported before the server starts, so that the first page loads quickly. JSON: the fields of
`Address`, and `browser`: whether to open a browser.
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
    "logger.hideWelcomeMessage": True,  # it suggests installing packages
    "server.headless": True,
    "client.showErrorDetails": "none",  # errors name local paths, so they are logged but not shown
}


def main(browser: bool = False, names: tuple[str, ...] = (), **where: Any) -> None:  # noqa: ANN401
    """Serve until stopped.

    Raises:
        AddressError: the address cannot be served; raised before a URL is printed.
    """
    address = Address(names=tuple(names), **where)
    address.check()
    import streamlit as st
    from starlette.middleware import Middleware
    from streamlit.cli_util import open_browser
    from streamlit.runtime.scriptrunner_utils import script_run_context

    from dashboard import store_cache, views  # noqa: F401

    # Streamlit warns when caches are filled outside of a page
    logging.getLogger(script_run_context.__name__).setLevel(logging.ERROR)

    @contextlib.asynccontextmanager
    async def announce(_: st.App) -> AsyncIterator[dict[str, Any] | None]:
        """Print the URL once the port is bound."""
        url = address.url(int(st.get_option("server.port")))
        print(f"{url}  (press Ctrl-C to stop)", flush=True)
        if browser:
            open_browser(url)
        yield None

    with contextlib.suppress(store_cache.NothingToShowError):  # shown on the page
        store_cache.read()
    page = Path(__file__).with_name("app.py")
    app = st.App(page, middleware=[Middleware(KnownHosts, address=address)], lifespan=announce)
    served = {"server.address": address.host, "server.port": address.port, "server.baseUrlPath": address.base_path}
    served |= {
        "server.corsAllowedOrigins": [f"https://{name}" for name in address.names]
    }  # a proxy may change the Host header
    with contextlib.suppress(KeyboardInterrupt):
        app.run(config=SETTINGS | served)


if __name__ == "__main__":
    try:
        main(**json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    except AddressError as error:
        sys.exit(f"bench: {error}")
