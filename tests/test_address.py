"""`bench dashboard`: addresses and allowed hosts, tested with real requests and WebSockets."""

import http.client
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Bench
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dashboard.address import Address, AddressError

PATIENCE_S = 90.0
ROOT = Path(__file__).parents[1]
BENCH = str(shutil.which("bench", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"))

Serve = Callable[..., tuple[str, subprocess.Popen[str]]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start `bench dashboard` on a free port; return (printed URL, process)."""
    running = []

    def start(*words: str) -> tuple[str, subprocess.Popen[str]]:
        command = [BENCH, "dashboard", "--no-browser", "--store", str(ROOT / "results" / "runs"), "--port", "0", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()  # type: ignore[union-attr]
        return lines.get(timeout=PATIENCE_S).split()[0], process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def parts(address: str) -> tuple[str, int, str]:
    name, _, rest = address.removeprefix("http://").rpartition(":")
    port, _, path = rest.partition("/")
    return name, int(port), f"/{path}" if path else ""


def status(address: str, path: str, host: str) -> int:
    """Return the status of an HTTP request with this Host header."""
    _, port, base = parts(address)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("GET", f"{base}{path}", headers={"Host": host})
    return connection.getresponse().status


def is_allowed(address: str, host: str, origin: str | None = None) -> bool:
    """Return whether a WebSocket opens with this Host and Origin (default: the same host)."""
    _, port, base = parts(address)
    raw = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    try:
        with connect(  # type: ignore[call-overload]
            f"ws://{host}{base}/_stcore/stream", sock=raw, origin=origin or f"http://{host}", proxy=None
        ) as stream:
            assert stream.protocol.state.name == "OPEN"
            return True
    except InvalidStatus as error:
        if error.response.status_code != 403:
            raise
        return False


def test_only_loopback_names_are_allowed_and_the_printed_url_works(serve: Serve) -> None:
    address, process = serve()
    _, port, _ = parts(address)
    assert address == f"http://localhost:{port}"
    for host in ("localhost", "127.0.0.1", "[::1]", "localhost."):
        assert is_allowed(address, f"{host}:{port}"), host
        assert status(address, "/", f"{host}:{port}") == 200
    assert is_allowed(address, "localhost:9999"), "ports may be forwarded"
    for host in ("evil.example", "localhost.evil.example", "10.0.0.1", "evil.localhost", socket.gethostname()):
        assert not is_allowed(address, f"{host}:{port}"), host
        for path in ("/", "/_stcore/health", "/_stcore/host-config", "/media/x"):
            assert status(address, path, f"{host}:{port}") == 403, (host, path)
    for origin in ("http://evil.example", "https://localhost.evil.example", "null", "http://["):
        assert not is_allowed(address, f"localhost:{port}", origin), origin
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) in (0, -signal.SIGINT)


def test_proxy_names_and_path(serve: Serve) -> None:
    address, _ = serve("--allow-host", "lab.example.org", "--base-path", "/team/board/")
    _, port, base = parts(address)
    assert base == "/team/board"
    assert is_allowed(address, "lab.example.org")
    assert is_allowed(address, f"localhost:{port}")
    assert is_allowed(address, f"localhost:{port}", "https://lab.example.org"), "a proxy may change the Host header"
    assert not is_allowed(address, "other.example.org")
    assert status(address, "/", "lab.example.org") == 200
    assert status(address, "/_stcore/health", "lab.example.org") == 200
    assert status(f"http://localhost:{port}", "/_stcore/health", "lab.example.org") != 200, "the base path is required"


def test_port_in_use_fails_before_a_url_is_printed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = [BENCH, "dashboard", "--no-browser", "--store", str(tmp_path), "--port", str(port)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"bench: cannot serve on localhost port {port}: Address already in use")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (("--host", "no-such-host.invalid"), "cannot serve on no-such-host.invalid"),
        (("--host", "203.0.113.1"), "cannot serve on 203.0.113.1"),  # reserved for documentation
        (("--host", "http://localhost"), "is not a host name or IP address"),
        (("--host", "unix:///tmp/x"), "is not a host name or IP address"),
        (("--host", "a" * 300), "cannot serve on"),
        (("--host", " "), "is not a host name or IP address"),
        (("--base-path", "../x"), "is not a valid path"),
        (("--base-path", "a?b"), "is not a valid path"),
        (("--allow-host", "https://x"), "is not a host name"),
        (("--allow-host", "*"), "is not a host name"),
    ],
)
def test_invalid_address_fails_in_one_line(asked: tuple[str, str], why: str, tmp_path: Path) -> None:
    words = [BENCH, "dashboard", "--no-browser", "--store", str(tmp_path), "--port", "0", *asked]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("port", ["-1", "99999", "x", ""])
def test_invalid_port(port: str, bench: Bench) -> None:
    result = bench("dashboard", "--port", port)
    assert (result.code, result.out) == (1, "")
    assert "Invalid value for '--port'" in result.err


def test_options_reach_the_server(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def execv(_: str, words: list[str]) -> None:
        calls.append(words)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)
    bench("dashboard", "--host", "::1", "--port", "7", "--base-path", "a", "--allow-host", "b", "--allow-host", "c")
    options = json.loads(calls[0][-1])
    assert options.pop("browser") is True
    assert Address(**options) == Address("::1", 7, "a", ["b", "c"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address(), "http://localhost:5"),
        (Address("0.0.0.0"), "http://localhost:5"),
        (Address("::1"), "http://[::1]:5"),
        (Address("box.local", base_path="//a/b/"), "http://box.local:5/a/b"),
    ],
)
def test_url(address: Address, url: str) -> None:
    assert address.url(5) == url


@pytest.mark.parametrize(
    "header", ["", "a@localhost", "localhost/", "localhost:x", "localhost:99999", "[::1", "localhost?", "\xff"]
)
def test_invalid_host_is_unknown(header: str) -> None:
    assert not Address().knows(header)
    assert not Address("0.0.0.0").knows(header)


def test_wildcard_address_allows_ips_and_the_host_name() -> None:
    for everywhere in (Address("0.0.0.0"), Address("::")):
        for header in ("192.168.1.5:8501", "[fe80::1]:8501", f"{socket.gethostname()}:8501", "localhost"):
            assert everywhere.knows(header), header
        assert not everywhere.knows("evil.example")
    assert Address("192.168.1.5").knows("192.168.1.5:8501")
    assert not Address("192.168.1.5").knows("192.168.1.6:8501")


def test_local_address_can_be_served() -> None:
    Address(port=0).check()
    Address("0.0.0.0", 0, "a/b.c", ("x.example",)).check()
    with pytest.raises(AddressError, match="cannot serve on 203"):
        Address("203.0.113.1", 80).check()
