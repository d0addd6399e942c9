"""Address of the leaderboard, and protection against DNS rebinding.

In DNS rebinding, a foreign page resolves its own host name to this machine, so that its script can read the leaderboard. The
browser still sends that name in the Host header, so requests with unknown hosts are rejected.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # wildcards: all addresses of this machine

Message = MutableMapping[str, Any]
Asgi = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class AddressError(Exception):
    """The address cannot be served; the message says why and what to do."""


@dataclass(frozen=True)
class Address:
    """Address to serve on. base_path: path below which a proxy serves the pages. names: further host names, such as a proxy's."""

    host: str = "localhost"
    port: int = 8501
    base_path: str = ""
    names: tuple[str, ...] = ()

    def check(self) -> None:
        """Check that the address can be served.

        Raises:
            AddressError: an option is invalid, the host is not an address of this machine, or the port is in use.
        """
        if not re.fullmatch(r"[\w.:-]+", self.host, re.ASCII):
            raise AddressError(
                f"--host {self.host!r} is not a host name or IP address: use a name or address of this machine"
            )
        if not re.fullmatch(r"(/*[\w.~-]+)*/*", self.base_path, re.ASCII) or ".." in self.base_path.split("/"):
            raise AddressError(f"--base-path {self.base_path!r} is not a valid path: write it like team/leaderboard")
        if odd := [name for name in self.names if not re.fullmatch(r"[\w.:-]+", name, re.ASCII)]:
            raise AddressError(f"--allow-host {odd[0]!r} is not a host name: write it without http:// and path")
        try:
            with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, self.port))
                probe.listen()
        except (OSError, UnicodeError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise AddressError(
                f"cannot serve on {self.host} port {self.port}: {why}; choose another address with --host and --port"
            ) from error

    def url(self, port: int) -> str:
        """Return the URL to open on this machine. port: the actual port, if 0 was requested."""
        host = "localhost" if self.host in EVERYWHERE else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}/{self.base_path.strip('/')}".rstrip("/")

    def knows(self, header: str) -> bool:
        """Return whether requests with this Host header are allowed: loopback names, --host and --allow-host, on any port.

        When listening on all addresses, every IP address is allowed: an IP address cannot be rebound.
        """
        try:
            parts = urlsplit(f"//{header}")
            name = (parts.hostname or "").lower().rstrip(".")
            _ = parts.port  # raises if it is not a number
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
    """ASGI middleware that rejects HTTP and WebSocket requests with unknown hosts."""

    def __init__(self, app: Asgi, address: Address) -> None:
        self._app, self._address = app, address

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan" or self._is_known(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send(
                {"type": "websocket.close", "code": 1008}
            )  # closed before it is accepted: the server answers 403
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            body = b"unknown host: allow it with `bench dashboard --allow-host NAME`\n"
            await send({"type": "http.response.body", "body": body})

    def _is_known(self, scope: Message) -> bool:
        """Return whether Host, and the Origin of a WebSocket, are known. Streamlit would ask an external server about Origins."""
        given = {kind: [value.decode("latin-1") for name, value in scope["headers"] if name == kind] for kind in _NAMES}
        hosts = [
            *given[b"host"],
            *(origin.partition("://")[2] for origin in given[b"origin"] if scope["type"] == "websocket"),
        ]
        return len(given[b"host"]) == 1 and all(map(self._address.knows, hosts))


_NAMES = (b"host", b"origin")
