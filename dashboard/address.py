"""Where the leaderboard is served, and the names by which it may be asked for.

A page elsewhere can give its own name this machine's address (DNS rebinding); its script then reads what is served here as if it
were its own. The browser still sends that name as Host, so a request under any other name than these is refused.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # all addresses of this machine

Message = MutableMapping[str, Any]
Asgi = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class AddressError(Exception):
    """Nothing can be served there; the message says why and what to do."""


@dataclass(frozen=True)
class Address:
    """What `bench dashboard` was asked to serve on. base_path: where a proxy shows it. names: further ones, such as a proxy's."""

    host: str = "localhost"
    port: int = 8501
    base_path: str = ""
    names: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises an AddressError where nothing can be served: the host is none of this machine's, the port is in use."""
        if not re.fullmatch(r"[\w.:-]+", self.host, re.ASCII):
            raise AddressError(f"--host {self.host!r} is no name or address of this machine")
        if not re.fullmatch(r"(/*[\w.~-]+)*/*", self.base_path, re.ASCII) or ".." in self.base_path.split("/"):
            raise AddressError(f"--base-path {self.base_path!r} is no path: write it as team/leaderboard")
        if odd := [name for name in self.names if not re.fullmatch(r"[\w.:-]+", name, re.ASCII)]:
            raise AddressError(f"--allow-host {odd[0]!r} is no name: write it without http:// and path")
        try:
            with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, self.port))
                probe.listen()
        except (OSError, UnicodeError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise AddressError(
                f"cannot serve on {self.host} port {self.port}: {why}; name others with --host and --port"
            ) from error

    def url(self, port: int) -> str:
        """What to open in a browser on this machine. port: the one that was given where 0 was asked for."""
        host = "localhost" if self.host in EVERYWHERE else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}/{self.base_path.strip('/')}".rstrip("/")

    def knows(self, header: str) -> bool:
        """Whether a request with this Host may come in: loopback names, --host and --allow-host, whatever the port.

        Where it listens on all addresses, every number is one that it may have; a number cannot be rebound.
        """
        try:
            parts = urlsplit(f"//{header}")
            name = (parts.hostname or "").lower().rstrip(".")
            _ = parts.port  # raises where it is no number
        except ValueError:
            return False
        if not name or set(header) & set("@/?#\\"):
            return False
        known = {one.lower().rstrip(".") for one in (*LOOPBACK, self.host, *self.names)} - set(EVERYWHERE)
        if self.host not in EVERYWHERE:
            return name in known
        return name in known or name == socket.gethostname().lower() or _is_number(name)


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class KnownHosts:
    """Lets no request through, of HTTP or of a WebSocket, that is sent to another name than those of its address."""

    def __init__(self, app: Asgi, address: Address) -> None:
        self._app, self._address = app, address

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """One request, of the ASGI interface."""
        if scope["type"] == "lifespan" or self._is_known(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: the server answers 403
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            told = b"not served under this name; `bench dashboard --allow-host NAME` adds one\n"
            await send({"type": "http.response.body", "body": told})

    def _is_known(self, scope: Message) -> bool:
        """Whether Host, and the Origin of a WebSocket, are known. Streamlit would ask a server elsewhere about a foreign Origin."""
        given = {kind: [value.decode("latin-1") for name, value in scope["headers"] if name == kind] for kind in _NAMES}
        hosts = [
            *given[b"host"],
            *(origin.partition("://")[2] for origin in given[b"origin"] if scope["type"] == "websocket"),
        ]
        return len(given[b"host"]) == 1 and all(map(self._address.knows, hosts))


_NAMES = (b"host", b"origin")
