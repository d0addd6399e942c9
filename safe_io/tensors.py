"""Reading tensors from safetensors and from files by torch.save, never running the code that a pickle can hold.

Loads torch when a file is read, not when it is imported.
"""

import argparse
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

SAVE_TENSORS = "save the tensors only, e.g. safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
# torn, or of another format; holding more than tensors and plain values; holding no tensors that can be used
Fault = Literal["file", "code", "content"]


class TensorFileError(Exception):
    """A file that tensors cannot be read from. The message is the path and `why`: what is wrong, and what to do."""

    def __init__(self, path: Path, fault: Fault, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.fault, self.why = fault, why


def read_content(path: Path, mapped: bool = False) -> Mapping[Any, Any]:
    """What a safetensors file or a file by torch.save holds: tensors and plain values by name, perhaps nested, on the CPU.

    mapped: leave the values of a file by torch.save on the disk until they are used, which halves the memory. Only where
        torch.save is known to have written it: a zip that another program packed, and compressed, would give other values.

    Raises:
        TensorFileError: no such file, pickled code (never run), a torn file, or no mapping in it.
    """
    start = _start(path)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path)
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise TensorFileError(path, "file", f"neither safetensors nor a file by torch.save; {SAVE_TENSORS}")
    return _read_pickled(path, mapped)


def check_values(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Refuses tensors that a file only announces: a few bytes can stand for more values than there is memory.

    Raises:
        TensorFileError: one is sparse, quantised, without values, or larger than its file.
    """
    import torch

    size = path.stat().st_size
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            text = f"{name} is sparse, quantised or without values; save dense floating-point tensors"
            raise TensorFileError(path, "content", text)
        if tensor.numel() * tensor.element_size() > size:
            text = f"{name} of shape {tuple(tensor.shape)} is larger than its file; save it contiguous"
            raise TensorFileError(path, "content", text)


def _start(path: Path) -> bytes:
    """The first bytes of what may be a file of tensors.

    Raises:
        TensorFileError: it surely is none.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise TensorFileError(path, "file", f"{what}; give the path of a weights file")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise TensorFileError(path, "file", "an empty file; fetch it again")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        text = "a web page, not weights; fetch the file itself, not the page that shows it"
        raise TensorFileError(path, "file", text)
    if start.startswith(b"version https://git-lfs"):
        text = "a pointer of Git LFS, not the weights; run `git lfs pull` where it came from"
        raise TensorFileError(path, "file", text)
    return start


def _read_safetensors(path: Path) -> "Mapping[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        text = f"torn, or not safetensors ({error}); fetch or save it again"
        raise TensorFileError(path, "file", text) from error


def _read_pickled(path: Path, mapped: bool) -> Mapping[Any, Any]:
    import torch

    try:
        # a Namespace holds a run's settings, in MAE's and DINO's files for instance, and does nothing when made
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except Exception as error:  # a spoilt pickle can raise nearly anything
        text = " ".join(str(error).split())
        if re.search(r"Weights only load failed|TorchScript", text):
            named = re.search(r"GLOBAL (\S+)|global (\S+?),? ", text)
            what = f" ({named[1] or named[2]})" if named else ""
            text = f"holds pickled code or objects{what}, which is not run; {SAVE_TENSORS}"
            raise TensorFileError(path, "code", text) from error
        text = f"torn or not a checkpoint ({type(error).__name__}: {text[:200]}); fetch or save it again"
        raise TensorFileError(path, "file", text) from error
    if not isinstance(content, Mapping):
        text = f"holds a {type(content).__name__}, not tensors by name; {SAVE_TENSORS}"
        raise TensorFileError(path, "content", text)
    return content
