"""Downloads: complete and within the size limit, or not at all."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from safe_io.files import sha256_of
from safe_io.web import DownloadError, download

PIECE = b"x" * 1000


class Server(BaseHTTPRequestHandler):
    """/sized/N sends N pieces with a Content-Length; /unsized/N without; /endless never ends."""

    sent = 0

    def do_GET(self) -> None:
        _, how, *count = self.path.split("/")
        self.send_response(200)
        if how == "sized":
            self.send_header("Content-Length", str(len(PIECE) * int(count[0])))
        self.end_headers()
        Server.sent = 0
        while how == "endless" or Server.sent < int(count[0]):
            try:
                self.wfile.write(PIECE)
            except OSError:
                return
            Server.sent += 1

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("how", ["sized/3000", "unsized/3000", "endless"])
def test_a_file_above_the_limit_is_not_taken(
    how: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_DOWNLOAD_GB", "0.002")
    with pytest.raises(DownloadError, match=r"the limit is 0\.002 GB.*BENCH_DOWNLOAD_GB"):
        download(f"{address}/{how}", "0" * 64, tmp_path / "w" / "file", progress=False)
    assert not list((tmp_path / "w").iterdir())
    assert Server.sent < 100_000, "the rest was not waited for"


@pytest.mark.parametrize("how", ["sized/1500", "unsized/1500"])
def test_a_file_below_the_limit_is(how: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DOWNLOAD_GB", "0.002")
    wanted = hashlib.sha256(PIECE * 1500).hexdigest()
    download(f"{address}/{how}", wanted, tmp_path / "file", progress=False)
    assert sha256_of(tmp_path / "file") == wanted


@pytest.mark.parametrize("limit", ["many", "nan", "inf", "-1", "0"])
def test_a_limit_that_is_none_is_named(
    limit: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_DOWNLOAD_GB", limit)
    with pytest.raises(DownloadError, match=f"a number of gigabytes above 0, not '{limit}'"):
        download(f"{address}/sized/1", "0" * 64, tmp_path / "file", progress=False)
