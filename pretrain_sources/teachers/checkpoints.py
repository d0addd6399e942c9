"""Checkpoints of Segment Anything: which there are, whether one can be had, getting it, and reading tensors, never code.

Looked for in this order: the user's folder of weights, then torch's cache; sam-tiny's lies here. Loads no torch
until tensors are read.
"""

import functools
import hashlib
import os
import pickle
import struct
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain_sources.recipe import SAM_TINY, SamTeacher
from pretrain_sources.teachers import Obstacle, TeacherError

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE_S = 8.0
CHUNK = 1 << 20  # bytes read at a time


class Published(NamedTuple):
    """A checkpoint that Meta publishes."""

    file: str
    sha256: str
    size: str  # about
    folder: str = "https://dl.fbaipublicfiles.com/segment_anything"

    @property
    def address(self) -> str:
        """Where it is downloaded from."""
        return f"{self.folder}/{self.file}"


PUBLISHED = {
    "vit_h": Published(
        "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", "2.6 GB"
    ),
    "vit_l": Published(
        "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", "1.2 GB"
    ),
    "vit_b": Published(
        "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", "375 MB"
    ),
}
SHIPPED = {SAM_TINY: Path(__file__).with_name("sam_tiny.safetensors")}


def expected_sha256(settings: SamTeacher, weights: Path) -> str:
    """The sha256 that the checkpoint must have: as set, as Meta published, or as the given file has it.

    Raises:
        TeacherError: the given file is missing.
    """
    if settings.sha256:
        return settings.sha256
    if settings.checkpoint is None:
        return _sha256(SHIPPED[settings.model]) if settings.model in SHIPPED else PUBLISHED[settings.model].sha256
    path = _at_hand(settings, weights)
    if path is None:
        raise TeacherError(_text(_missing(settings.checkpoint, weights)))
    return _sha256(path)


def obstacle(settings: SamTeacher, weights: Path) -> Obstacle | None:
    """What stands in the way of having the checkpoint, or None. The network is asked once per process, for at most 8 seconds."""
    if _at_hand(settings, weights):
        return None
    if settings.checkpoint is not None:
        return _missing(settings.checkpoint, weights)
    published = PUBLISHED[settings.model]
    why = "HF_HUB_OFFLINE is set" if _offline() else _silence(published.address)
    if why is None:
        return None
    return Obstacle(
        f"{published.file} (about {published.size}) is not in {weights} and cannot be downloaded: {why}",
        f"put it into {weights / published.file}, from {published.address}",
    )


def find_or_fetch(settings: SamTeacher, weights: Path, progress: bool = True) -> Path:
    """The checkpoint's file, downloaded into `weights` if need be, its sha256 checked. `progress`: show a bar of bytes.

    Raises:
        TeacherError: it is missing, did not come whole, or has another sha256.
    """
    path = _at_hand(settings, weights)
    if path is None:
        if stop := obstacle(settings, weights):
            raise TeacherError(_text(stop))
        return _download(PUBLISHED[settings.model], expected_sha256(settings, weights), weights, progress)
    wanted = expected_sha256(settings, weights)
    if (found := _sha256(path)) != wanted:
        mend = "delete it and fetch it again" if settings.checkpoint is None else "correct `checkpoint` or `sha256`"
        raise TeacherError(f"{path} has sha256 {_short(found)}, expected is {_short(wanted)}: {mend}")
    return path


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors in a file of safetensors or of torch.save, by name, on the CPU. Code in a file is never run.

    Raises:
        TeacherError: the file is torn, holds code, or something other than named tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise TeacherError(f"{path} cannot be read: it is torn or no checkpoint; fetch it again") from error
        raise TeacherError(
            f"{path} holds code, which was not run: only tensors are read; save model.state_dict() or safetensors"
        ) from error
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        LookupError,
        AttributeError,
        struct.error,
        SafetensorError,
    ) as error:
        raise TeacherError(f"{path} cannot be read as tensors ({error}); it may be torn: fetch it again") from error
    for wrapper in ("model", "state_dict"):
        held = held.get(wrapper, held) if isinstance(held, dict) else held
    if not isinstance(held, Mapping) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise TeacherError(f"{path} holds something other than named tensors; save model.state_dict()")
    return dict(held)


def _at_hand(settings: SamTeacher, weights: Path) -> Path | None:
    if settings.checkpoint is None and settings.model in SHIPPED:
        places = [SHIPPED[settings.model]]
    elif settings.checkpoint is not None:
        places = [Path(settings.checkpoint), weights / settings.checkpoint]
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torch"
        folders = [weights, Path(os.environ.get("TORCH_HOME", cache)) / "hub" / "checkpoints"]
        places = [folder / PUBLISHED[settings.model].file for folder in folders]
    return next((path for path in places if path.is_file()), None)


def _missing(checkpoint: str, weights: Path) -> Obstacle:
    tried = checkpoint if Path(checkpoint).is_absolute() else f"{Path.cwd() / checkpoint} nor {weights / checkpoint}"
    return Obstacle(f"no checkpoint {tried}", "put it there, or correct `checkpoint` in the recipe")


def _text(stop: Obstacle) -> str:
    return f"{stop.reason}; {stop.mend}"


def _short(sha256: str) -> str:
    return f"{sha256[:12]}..."


def _sha256(path: Path) -> str:
    state = path.stat()
    return _content(path.absolute(), state.st_size, state.st_mtime_ns)


@functools.cache
def _content(path: Path, size: int, changed: int) -> str:
    """Read once for each size and time of change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


@functools.cache
def _silence(address: str) -> str | None:
    """Why an address does not answer, or None where it does. In a thread, because a name look-up obeys no time limit."""
    answer: list[str | None] = []
    asking = threading.Thread(target=lambda: answer.append(_ask(address)), daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return answer[0] if answer else f"no answer within {PATIENCE_S:.0f} s"


def _ask(address: str) -> str | None:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE_S).close()
    except (OSError, HTTPException) as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server says {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason)


def _download(published: Published, wanted: str, weights: Path, progress: bool) -> Path:
    """Written aside and renamed only when whole and right."""
    target = weights / published.file
    aside: Path | None = None
    try:
        weights.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=weights, prefix=f".{published.file}.", delete=False) as file:
            aside = Path(file.name)
            found = _receive(published, file, progress)
        if found != wanted:
            raise TeacherError(
                f"{published.address} came with sha256 {_short(found)}, expected is {_short(wanted)}: nothing was kept; "
                "fetch it again, or put the right file there by hand"
            )
        aside.chmod(0o644)  # temporary files are for their owner alone
        aside.replace(target)
    except (OSError, HTTPException) as error:
        raise TeacherError(
            f"{published.address} did not come whole: {_reason(error)}; try again, or put it into {target} by hand"
        ) from error
    finally:
        if aside:
            aside.unlink(missing_ok=True)
    return target


def _receive(published: Published, file: "tempfile._TemporaryFileWrapper[bytes]", progress: bool) -> str:
    """Copies the bytes; returns their sha256.

    Raises:
        OSError: the connection broke, or the disk is full.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    digest = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with (
        urllib.request.urlopen(published.address, timeout=60) as answer,
        Progress(*columns, console=Console(stderr=True), disable=not progress) as bar,
    ):
        task = bar.add_task(published.file, total=answer.length)
        expected, got = answer.length, 0
        while piece := answer.read(CHUNK):
            file.write(piece)
            digest.update(piece)
            got += len(piece)
            bar.update(task, completed=got)
    if expected is not None and got != expected:
        raise OSError(f"the connection broke after {got} of {expected} bytes")
    return digest.hexdigest()
