"""Files from an address: whether it answers, and downloading one whole or not at all."""

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
MOST_GB = 4.0  # of one file, unless BENCH_DOWNLOAD_GB says otherwise; Meta's largest SAM has 2.6
CHUNK = 1 << 20  # bytes read at a time


class DownloadError(Exception):
    """A file did not come, or came otherwise than expected; the message says why and what to do."""


def unreachable_reason(address: str, any_answer: bool = False) -> str | None:
    """Why an address does not answer, or None where it does. It is asked once per process, for at most 8 seconds.

    any_answer: a server is asked for, not a file: one that says "404 Not Found" has answered.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return "HF_HUB_OFFLINE is set" if offline else _asked(address, any_answer)


def download(address: str, sha256: str, target: Path, progress: bool = True) -> None:
    """Downloads `address` to `target`: written aside, and renamed only when whole and of this sha256. progress: a bar of bytes.

    Raises:
        DownloadError: the connection broke, the disk is full, it is too large, or other bytes came; nothing is left behind.
    """
    try:
        with whole(target) as aside:
            with aside.open("wb") as file:
                found = _receive(address, target.name, file, progress)
            if found != sha256:
                raise DownloadError(
                    f"{address} came with sha256 {short_digest(found)}, expected is {short_digest(sha256)}: "
                    "nothing was kept; fetch it again, or put the right file there by hand"
                )
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"{address} did not come whole: {_reason(error)}; try again, or put it into {target} by hand"
        ) from error


@functools.cache
def _asked(address: str, any_answer: bool) -> str | None:
    """In a thread, because a name look-up obeys no time limit."""
    answer: list[str | None] = []
    asking = threading.Thread(target=lambda: answer.append(_ask(address, any_answer)), daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return answer[0] if answer else f"no answer within {PATIENCE_S:.0f} s"


def _ask(address: str, any_answer: bool) -> str | None:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE_S).close()
    except (OSError, HTTPException) as error:
        return None if any_answer and isinstance(error, urllib.error.HTTPError) else _reason(error)
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server says {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason)


def _receive(address: str, name: str, file: IO[bytes], progress: bool) -> str:
    """Copies the bytes; returns their sha256.

    Raises:
        OSError: the connection broke, or the disk is full. DownloadError: there are more bytes than are taken.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    digest, most = hashlib.sha256(), _most_bytes()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with (
        urllib.request.urlopen(address, timeout=60) as answer,
        Progress(*columns, console=Console(stderr=True), disable=not progress) as bar,
    ):
        task = bar.add_task(name, total=answer.length)
        expected, got = answer.length, 0
        _refuse_above(most, expected or 0, address)
        while piece := answer.read(CHUNK):
            _refuse_above(most, got + len(piece), address)
            file.write(piece)
            digest.update(piece)
            got += len(piece)
            bar.update(task, completed=got)
    if expected is not None and got != expected:
        raise OSError(f"the connection broke after {got} of {expected} bytes")
    return digest.hexdigest()


def _most_bytes() -> int:
    """How large a file may be.

    Raises:
        DownloadError: BENCH_DOWNLOAD_GB is no number above 0.
    """
    given = os.environ.get("BENCH_DOWNLOAD_GB") or str(MOST_GB)
    try:
        most = float(given)
    except ValueError:
        most = math.nan
    if not 0 < most < 1e6:
        raise DownloadError(f"BENCH_DOWNLOAD_GB must be a number of gigabytes above 0, not '{given}'")
    return int(most * 1e9)


def _refuse_above(most: int, size: int, address: str) -> None:
    if size > most:
        raise DownloadError(
            f"{address} has {size / 1e9:.1f} GB or more and at most {most / 1e9:g} are taken: nothing was kept; "
            "set BENCH_DOWNLOAD_GB where it is right, or put it there by hand"
        )
