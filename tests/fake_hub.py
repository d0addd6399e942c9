"""A Hugging Face hub on this machine, for tests: answers as the real one does about the models in a folder."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

from pretrain_sources.teachers import transformers_weights

COMMITS = {None: "c" * 40, "main": "c" * 40, "v1": "1" * 40, "c" * 40: "c" * 40}  # revision -> commit


class Hub(BaseHTTPRequestHandler):
    """Serves the files of ROOT/OWNER/NAME, the tensors as LFS files."""

    root: ClassVar[Path]
    fault: ClassVar[tuple[int, str] | None] = None  # the status and error code of every answer
    changes: ClassVar[dict[str, Any]] = {}  # to the entry of the tensors in the list of files
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._file(with_body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            self._info()
        else:
            self._file(with_body=True)

    def _info(self) -> None:
        owner, name, *rest = unquote(self.path.partition("?")[0].removeprefix("/api/models/")).split("/")
        self.asked.append(f"info {owner}/{name}")
        revision = rest[1] if rest else None
        if self._fails(self.root / owner / name, revision):
            return
        listed = []
        for path in sorted((self.root / owner / name).iterdir()):
            entry = {"rfilename": path.name, "size": path.stat().st_size, "blobId": "b"}
            if path.suffix == ".safetensors":
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                entry |= {"lfs": {"sha256": sha256, "size": entry["size"], "pointerSize": 1}} | self.changes
            listed.append(entry)
        body = json.dumps({"id": f"{owner}/{name}", "sha": COMMITS[revision], "siblings": listed}).encode()
        self._answer(200, {"Content-Type": "application/json"}, body)

    def _file(self, with_body: bool) -> None:
        if self.path == "/":
            return self._answer(200, {}, b"")
        owner, name, _, revision, file = self.path[1:].split("/")
        if self._fails(self.root / owner / name, revision):
            return None
        if with_body:
            self.asked.append(file)
        content = (self.root / owner / name / file).read_bytes()
        headers = {"X-Repo-Commit": COMMITS[revision], "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return self._answer(200, headers, content, with_body)

    def _fails(self, folder: Path, revision: str | None) -> bool:
        fault = self.fault or (None if folder.is_dir() else (401, "RepoNotFound"))
        fault = fault or (None if revision in COMMITS else (404, "RevisionNotFound"))
        if fault:
            self._answer(fault[0], {"X-Error-Code": fault[1]}, b"")
        return fault is not None

    def _answer(self, status: int, headers: dict[str, str], body: bytes, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def online(root: Path, cache: Path, patch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """Serve the models in `root` as the hub, with an empty cache of the hub's client."""
    handler = type("OwnHub", (Hub,), {"root": root, "asked": [], "changes": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
    patch.delenv("HF_HUB_OFFLINE", raising=False)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    address = f"http://127.0.0.1:{server.server_port}"
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    transformers_weights._asked.cache_clear()
    yield handler
    server.shutdown()
    server.server_close()
    transformers_weights._asked.cache_clear()
