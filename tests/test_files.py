import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spoiled import ODD_FILES

from results.files import printable, read_regular


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ("a device", "symbolic link"),
        ("a pipe", "not a regular file"),
        ("a socket", "No such device"),
        ("6 GB", "larger than 1,000 bytes"),
        ("a folder", "Is a directory"),
        ("a link to itself", "symbolic link"),
        ("a link to nothing", "symbolic link"),
    ],
)
def test_what_is_no_regular_file_is_never_read(odd: str, why: str, tmp_path: Path) -> None:
    ODD_FILES[odd](tmp_path / "file")
    with pytest.raises(OSError, match=why):
        read_regular(tmp_path / "file", 1000)
    with pytest.raises(OSError) as told:  # noqa: PT011 - of any kind, and never a hang
        read_regular(tmp_path / "file", 1000, links=True)
    assert odd not in ("a device", "a pipe") or told.value.strerror == "not a regular file"


def test_a_regular_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to("file")
    assert read_regular(path, 1000) == b"x" * 1000
    assert read_regular(tmp_path / "link", 1000, links=True) == b"x" * 1000
    with pytest.raises(OSError, match="larger than 999 bytes"):
        read_regular(path, 999)
    with pytest.raises(OSError, match="larger than 3 bytes"):
        read_regular(Path("/proc/self/status"), 3)  # says that it has 0 bytes
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nothing", 1)


@given(st.text(st.characters()) | st.binary().map(os.fsdecode))
def test_what_is_printed_can_be_printed_whatever_it_was(text: str) -> None:
    told = printable(text)
    assert told.isprintable()
    told.encode()
    assert told == text or not text.isprintable()


def test_names_keep_what_can_be_read() -> None:
    assert printable(Path("a") / os.fsdecode(b"caf\xe9\n\x1b")) == r"a/caf\udce9\n\x1b"
    assert printable("mine: größer") == "mine: größer"
