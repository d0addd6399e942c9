"""Files of tensors: the same values mapped or loaded, and the kinds of faults.

Hostile and truncated files are covered by test_checkpoint_file.py and test_sam.py, whose modules use these functions.
"""

from pathlib import Path

import pytest
import torch

from safe_io.tensors import TensorFileError, check_values, read_content


@pytest.mark.parametrize("zipped", [True, False])
def test_mapped_values_are_the_same(zipped: bool, tmp_path: Path) -> None:
    held = {"model": {"weight": torch.rand(5, 7)}, "epoch": 3}
    torch.save(held, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    for mapped in (True, False):
        content = read_content(tmp_path / "a.pth", mapped=mapped)
        assert content["epoch"] == 3
        assert torch.equal(content["model"]["weight"], held["model"]["weight"])


@pytest.mark.parametrize(
    ("content", "fault"),
    [([torch.rand(2)], "content"), ({"a": torch.nn.Linear(2, 2)}, "code"), (None, "file")],
    ids=["a list", "a module", "an empty file"],
)
def test_an_error_has_a_fault_and_a_path(content: object, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path) if content is not None else path.touch()
    with pytest.raises(TensorFileError) as refused:
        read_content(path)
    assert refused.value.fault == fault
    assert str(refused.value) == f"{path}: {refused.value.why}"


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "a.pth")
    with pytest.raises(TensorFileError, match="larger than its file"):
        check_values(tmp_path / "a.pth", dict(read_content(tmp_path / "a.pth")))
