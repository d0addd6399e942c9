"""Downloads: checking whether a URL answers, and downloading a file atomically."""

import functools
import hashlib
import math
import os
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO

from safe_io.files import short_digest, whole

PATIENCE_S = 8.0
MOST_GB = 4.0  # of one file, unless BENCH_DOWNLOAD_GB is set; Meta's largest SAM has 2.6
CHUNK = 1 << 20  # bytes read at a time


class DownloadError(Exception):
    """A download failed; the message says why and what to do."""


def unreachable_reason(address: str, any_answer: bool = False) -> str | None:
    """Return why a URL does not answer, or None if it does. One request per process, of at most 8 seconds.

    any_answer: test the server, not a file: "404 Not Found" counts as an answer.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return "HF_HUB_OFFLINE is set" if offline else _cached_probe(address, any_answer)


def hub_silence() -> str | None:
    """Return why the Hugging Face hub does not answer, or None if it does. One request per process, of at most 8 seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return unreachable_reason(constants.ENDPOINT, any_answer=True)


def refuse_large(size: int, address: str) -> None:
    """Refuse a file of more bytes than may be downloaded.

    Raises:
        DownloadError: it is too large, or BENCH_DOWNLOAD_GB is not a number above 0.
    """
    _refuse_above(_most_bytes(), size, address)


def download(address: str, sha256: str, target: Path, progress: bool = True) -> None:
    """Download `address` to `target` atomically, if it has this sha256. progress: show a progress bar.

    Raises:
        DownloadError: the connection broke, the disk is full, the file is too large or has another sha256. Nothing is kept.
    """
    try:
        with whole(target) as aside:
            with aside.open("wb") as file:
                received = _receive(address, target.name, file, progress)
            if received != sha256:
                raise DownloadError(
                    f"{address} has sha256 {short_digest(received)}, expected {short_digest(sha256)}: "
                    f"nothing was kept; download it again, or put the right file at {target}"
                )
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"{address}: download failed: {_reason(error)}; try again, or put the file at {target}"
        ) from error


@functools.cache
def _cached_probe(address: str, any_answer: bool) -> str | None:
    """Probe in a thread: a DNS look-up has no timeout."""
    answer: list[str | None] = []
    thread = threading.Thread(target=lambda: answer.append(_probe(address, any_answer)), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return answer[0] if answer else f"no answer within {PATIENCE_S:.0f} s"


def _probe(address: str, any_answer: bool) -> str | None:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE_S).close()
    except (OSError, HTTPException) as error:
        return None if any_answer and isinstance(error, urllib.error.HTTPError) else _reason(error)
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server returned {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason)


def _receive(address: str, name: str, file: IO[bytes], progress: bool) -> str:
    """Write the response to `file`; return its sha256.

    Raises:
        OSError: the connection broke, or the disk is full. DownloadError: it is larger than the limit.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    digest, most = hashlib.sha256(), _most_bytes()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with (
        urllib.request.urlopen(address, timeout=60) as response,
        Progress(*columns, console=Console(stderr=True), disable=not progress) as bar,
    ):
        task = bar.add_task(name, total=response.length)
        expected, received = response.length, 0
        _refuse_above(most, expected or 0, address)
        while chunk := response.read(CHUNK):
            _refuse_above(most, received + len(chunk), address)
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            bar.update(task, completed=received)
    if expected is not None and received != expected:
        raise OSError(f"the connection broke after {received} of {expected} bytes")
    return digest.hexdigest()


def _most_bytes() -> int:
    """Return the size limit of a download.

    Raises:
        DownloadError: BENCH_DOWNLOAD_GB is not a number above 0.
    """
    value = os.environ.get("BENCH_DOWNLOAD_GB") or str(MOST_GB)
    try:
        most = float(value)
    except ValueError:
        most = math.nan
    if not 0 < most < 1e6:
        raise DownloadError(f"BENCH_DOWNLOAD_GB must be a number of gigabytes above 0, not '{value}'")
    return int(most * 1e9)


def _refuse_above(most: int, size: int, address: str) -> None:
    if size > most:
        raise DownloadError(
            f"{address} has {size / 1e9:.1f} GB or more, the limit is {most / 1e9:g} GB: nothing was kept; "
            "set BENCH_DOWNLOAD_GB to raise it, or put the file there by hand"
        )
