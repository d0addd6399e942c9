"""Checkpoints of Segment Anything: locating, downloading and reading them, without running code.

Search order: the user's folder of weights, then torch's cache; sam-tiny's checkpoint is in this package. torch is imported when
tensors are read.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_sources.recipe import SAM_TINY, SamTeacher
from pretrain_sources.teachers.contract import TeacherError
from safe_io.files import sha256_of, short_digest
from safe_io.tensors import TensorFileError, read_content
from safe_io.web import DownloadError, download, unreachable_reason

if TYPE_CHECKING:
    from torch import Tensor


class Published(NamedTuple):
    """A checkpoint that Meta publishes."""

    file: str
    sha256: str
    size: str  # approximate
    folder: str = "https://dl.fbaipublicfiles.com/segment_anything"

    @property
    def address(self) -> str:
        """Return its URL."""
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
_FAULTS = {
    "code": "contains code, which was not run: save only tensors, with model.state_dict() or safetensors",
    "content": "contains something other than named tensors; save model.state_dict()",
}
SHIPPED = {SAM_TINY: Path(__file__).with_name("sam_tiny.safetensors")}


def expected_sha256(settings: SamTeacher, weights: Path) -> str:
    """Return the sha256 that the checkpoint must have: as set, as published, or that of the given file.

    Raises:
        TeacherError: the given file is missing.
    """
    if settings.sha256:
        return settings.sha256
    if settings.checkpoint is None:
        return sha256_of(SHIPPED[settings.model]) if settings.model in SHIPPED else PUBLISHED[settings.model].sha256
    path = _local_path(settings, weights)
    if path is None:
        raise TeacherError(_missing(settings.checkpoint, weights))
    return sha256_of(path)


def obstacle(settings: SamTeacher, weights: Path) -> str | None:
    """Return why the checkpoint is not available and what to do, or None. Probes the network once, for at most 8 seconds."""
    if _local_path(settings, weights):
        return None
    if settings.checkpoint is not None:
        return _missing(settings.checkpoint, weights)
    published = PUBLISHED[settings.model]
    why = unreachable_reason(published.address)
    if why is None:
        return None
    return (
        f"{published.file} (about {published.size}) is not in {weights} and cannot be downloaded: {why}; "
        f"put it into {weights / published.file}, from {published.address}"
    )


def find_or_fetch(settings: SamTeacher, weights: Path, progress: bool = True) -> Path:
    """Return the checkpoint's path after checking its sha256; download it into `weights` if needed, with a bar if `progress`.

    Raises:
        TeacherError: it is missing, the download failed, or it has another sha256.
    """
    path = _local_path(settings, weights)
    if path is None:
        if stop := obstacle(settings, weights):
            raise TeacherError(stop)
        published = PUBLISHED[settings.model]
        try:
            download(published.address, expected_sha256(settings, weights), weights / published.file, progress=progress)
        except DownloadError as error:
            raise TeacherError(str(error)) from error
        return weights / published.file
    expected = expected_sha256(settings, weights)
    if (actual := sha256_of(path)) != expected:
        fix = (
            "delete it and run again to download it" if settings.checkpoint is None else "fix `checkpoint` or `sha256`"
        )
        raise TeacherError(f"{path} has sha256 {short_digest(actual)}, expected {short_digest(expected)}: {fix}")
    return path


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """Read the tensors of a safetensors or torch.save file by name, on the CPU. Code in a file is never run.

    Raises:
        TeacherError: the file is damaged, or contains code or something other than named tensors.
    """
    import torch

    try:
        content: Any = read_content(path, mapped=True)
    except TensorFileError as error:
        fault = _FAULTS.get(
            error.fault, f"cannot be read as tensors ({error.why}); it may be damaged: download it again"
        )
        raise TeacherError(f"{path} {fault}") from error
    for wrapper in ("model", "state_dict"):
        content = content.get(wrapper, content) if isinstance(content, dict) else content
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise TeacherError(f"{path} {_FAULTS['content']}")
    return dict(content)


def refuse_misfits(path: Path, model: str, misfits: Mapping[str, Iterable[str]], fix: str) -> None:
    """Refuse a checkpoint if tensors of it do not fit a model. misfits: what is wrong -> names of tensors.

    Raises:
        TeacherError: the counts, the first name of each kind, and the fix.
    """
    wrong = [(what, sorted(names)) for what, names in misfits.items()]
    if faults := [f"{len(names)} {what} ({names[0]})" for what, names in wrong if names]:
        raise TeacherError(f"{path} does not fit {model}: tensors {', '.join(faults)}; {fix}")


def _local_path(settings: SamTeacher, weights: Path) -> Path | None:
    if settings.checkpoint is None and settings.model in SHIPPED:
        places = [SHIPPED[settings.model]]
    elif settings.checkpoint is not None:
        places = [Path(settings.checkpoint), weights / settings.checkpoint]
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torch"
        folders = [weights, Path(os.environ.get("TORCH_HOME", cache)) / "hub" / "checkpoints"]
        places = [folder / PUBLISHED[settings.model].file for folder in folders]
    return next((path for path in places if path.is_file()), None)


def _missing(checkpoint: str, weights: Path) -> str:
    tried = checkpoint if Path(checkpoint).is_absolute() else f"{Path.cwd() / checkpoint} nor {weights / checkpoint}"
    return f"no checkpoint {tried}; put it there, or fix `checkpoint` in the recipe"
