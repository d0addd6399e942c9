"""Checkpoints are read without running code, and refused with a reason if they have no weights."""

import argparse
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_fitting import tiny
from test_layouts import same
from torch import nn

from backbones.checkpoint_file import CheckpointError, read_tensors


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def written(path: Path, content: object, **keywords: object) -> Path:
    torch.save(content, path, **keywords)
    return path


@pytest.mark.parametrize("how", ["zip", "legacy", "safetensors", "safetensors under another name"])
def test_tensors_are_read(how: str, tmp_path: Path) -> None:
    path = tmp_path / {"zip": "a.pth", "legacy": "a.ckpt", "safetensors": "a.safetensors"}.get(how, "a.bin")
    if "safetensors" in how:
        save_file(tiny(), path)
    else:
        written(path, tiny(), _use_new_zipfile_serialization=how == "zip")
    tensors, notes = read_tensors(path)
    assert same(tensors, tiny())
    assert notes == (f"18 tensors read from {path.name}",)


@pytest.mark.parametrize(
    "keys", [["state_dict"], ["model"], ["model_state_dict"], ["state", "model_ema", "module"], ["teacher"]]
)
def test_containers_are_opened_and_the_rest_is_noted(keys: list[str], tmp_path: Path) -> None:
    content: dict[str, object] = dict(tiny())
    for key in reversed(keys):
        content = {key: content}
    optimizer = {"state": {"a": {"exp_avg": torch.rand(3)}}, "param_groups": [{"lr": 0.1}]}
    content |= {
        "epoch": 3,
        "optimizer": optimizer,
        "args": argparse.Namespace(lr=0.1),
        "loss": {"center": torch.rand(9)},
    }
    tensors, notes = read_tensors(written(tmp_path / "a.pth", content))
    assert same(tensors, tiny())
    assert notes[0] == f"18 tensors read from a.pth, inside '{'.'.join(keys)}'"
    assert notes[1] == "ignored besides the weights: epoch, optimizer, args, loss"


def test_parameters_and_numbers_among_the_tensors(tmp_path: Path) -> None:
    content = {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in tiny().items()}
    tensors, notes = read_tensors(written(tmp_path / "a.pth", content | {"epoch": 7}))
    assert same(tensors, tiny())
    assert not any(tensor.requires_grad for tensor in tensors.values())
    assert notes[1] == "ignored besides the weights: epoch"


def test_several_containers_need_a_choice(tmp_path: Path) -> None:
    moved = {name: tensor + 1 for name, tensor in tiny().items()}
    content = {"student": {"net": tiny()}, "teacher": {"net": moved}, "epoch": 3}
    path = written(tmp_path / "a.pth", content)
    with pytest.raises(CheckpointError, match=r"'student.net', 'teacher.net'; choose one .* inside: 'teacher.net'"):
        read_tensors(path)
    assert same(read_tensors(path, inside="teacher")[0], moved)
    assert same(read_tensors(path, inside="student.net")[0], tiny())
    with pytest.raises(CheckpointError, match="no tensors by name inside 'studen'"):
        read_tensors(path, inside="studen")


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)  # type: ignore[attr-defined]


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(zipped: bool, tmp_path: Path) -> None:
    code = Code()
    code.folder = str(tmp_path / "ran")  # type: ignore[attr-defined]
    path = written(tmp_path / "a.pth", {"model": tiny(), "x": code}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError,
        match=r"pickled code or objects.*posix.* are never run; save the tensors only, e.g. safetensors",
    ):
        read_tensors(path)
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_and_a_torchscript_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"pickled code or objects \(torch.nn.modules.linear.Linear\)"):
        read_tensors(written(tmp_path / "a.pth", nn.Linear(2, 2)))
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="pickled code or objects"):
        read_tensors(tmp_path / "b.pt")


@pytest.mark.parametrize("how", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(how: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{'safetensors' if how == 'safetensors' else 'pth'}"
    save_file(tiny(), path) if how == "safetensors" else written(
        path, tiny(), _use_new_zipfile_serialization=how == "zip"
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match=r"a\.\w+: truncated"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty file"),
        (b"\n<!DOCTYPE html><html>", "a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "neither safetensors nor a torch.save file"),
    ],
)
def test_other_files_are_refused(content: bytes, why: str, tmp_path: Path) -> None:
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=why):
        read_tensors(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=why if "neither" not in why else "truncated or not safetensors"):
        read_tensors(tmp_path / "a.safetensors")


def test_missing_files_and_files_without_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"b.pth: no such file"):
        read_tensors(tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="a folder"):
        read_tensors(tmp_path)
    with pytest.raises(CheckpointError, match="no tensors by name, only epoch"):
        read_tensors(written(tmp_path / "a.pth", {"epoch": 3}))
    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="no tensors by name, only nothing"):
        read_tensors(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="contains a list"):
        read_tensors(written(tmp_path / "a.pth", [torch.rand(3)]))


def test_tensors_without_plain_values_are_refused(tmp_path: Path) -> None:
    for odd in (torch.rand(3, 3).to_sparse(), torch.empty(3, device="meta")):
        with pytest.raises(CheckpointError, match="sparse, quantised or has no values"):
            read_tensors(written(tmp_path / "a.pth", {"a": odd}))
    with pytest.raises(CheckpointError, match="larger than its file"):
        read_tensors(written(tmp_path / "a.pth", {"a": torch.zeros(1).expand(10**9)}))


def test_a_file_that_contains_itself_is_read(tmp_path: Path) -> None:
    content: dict[str, object] = {"model": tiny()}
    content |= {f"again{i}": content for i in range(50)}
    assert same(read_tensors(written(tmp_path / "a.pth", content))[0], tiny())
