"""Reading tensors from safetensors and torch.save files without running the code that a pickle can contain.

torch is imported when a file is read, not with this module.
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
Fault = Literal["file", "code", "content"]  # unreadable or another format; contains code; contains no usable tensors


class TensorFileError(Exception):
    """Tensors cannot be read from a file. The message is the path and `why`: what is wrong, and what to do."""

    def __init__(self, path: Path, fault: Fault, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.fault, self.why = fault, why


def read_content(path: Path, mapped: bool = False) -> Mapping[Any, Any]:
    """Read a safetensors or torch.save file: tensors and plain values by name, possibly nested, on the CPU.

    mapped: memory-map a torch.save file, which halves the memory. Only for files that torch.save is known to have written: a
        zip that another program compressed would yield wrong values.

    Raises:
        TensorFileError: the file is missing or truncated, contains pickled code (never run), or is not a mapping.
    """
    start = _start(path)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path)
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise TensorFileError(path, "file", f"neither safetensors nor a torch.save file; {SAVE_TENSORS}")
    return _read_pickled(path, mapped)


def check_values(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Refuse tensors that are larger than their file: a few bytes can declare more values than fit into memory.

    Raises:
        TensorFileError: one is sparse, quantised, without values, or larger than its file.
    """
    import torch

    size = path.stat().st_size
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            text = f"{name} is sparse, quantised or has no values; save dense floating-point tensors"
            raise TensorFileError(path, "content", text)
        if tensor.numel() * tensor.element_size() > size:
            text = f"{name} of shape {tuple(tensor.shape)} is larger than its file; save it contiguous"
            raise TensorFileError(path, "content", text)


def _start(path: Path) -> bytes:
    """Read the first bytes of a file of tensors.

    Raises:
        TensorFileError: it cannot be one.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise TensorFileError(path, "file", f"{what}; give the path of a weights file")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise TensorFileError(path, "file", "empty file; download it again")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        text = "a web page, not weights; download the file itself"
        raise TensorFileError(path, "file", text)
    if start.startswith(b"version https://git-lfs"):
        text = "a Git LFS pointer, not the weights; run `git lfs pull` in its repository"
        raise TensorFileError(path, "file", text)
    return start


def _read_safetensors(path: Path) -> "Mapping[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        text = f"truncated or not safetensors ({error}); download or save it again"
        raise TensorFileError(path, "file", text) from error


def _read_pickled(path: Path, mapped: bool) -> Mapping[Any, Any]:
    import torch

    try:
        # a Namespace holds a run's settings, in MAE's and DINO's files for instance, and runs no code
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can raise nearly anything
        text = " ".join(str(error).split())
        if re.search(r"Weights only load failed|TorchScript", text):
            named = re.search(r"GLOBAL (\S+)|global (\S+?),? ", text)
            what = f" ({named[1] or named[2]})" if named else ""
            text = f"contains pickled code or objects{what}, which are never run; {SAVE_TENSORS}"
            raise TensorFileError(path, "code", text) from error
        text = f"truncated or not a checkpoint ({type(error).__name__}: {text[:200]}); download or save it again"
        raise TensorFileError(path, "file", text) from error
    if not isinstance(content, Mapping):
        text = f"contains a {type(content).__name__}, not tensors by name; {SAVE_TENSORS}"
        raise TensorFileError(path, "content", text)
    return content
