import os
import time
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from pretrain_sources.config_file import MOST_BYTES, FileError, Number, Whole, read_yaml, read_yaml_list, suggestion


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    low: Number
    high: float = 1.0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    search: Inner
    steps: Whole | None = None


def read(folder: Path, text: str) -> Outer:
    path = folder / "file.yaml"
    path.write_text(text)
    return read_yaml(path, Outer)


def test_a_good_file(tmp_path: Path) -> None:
    assert read(tmp_path, "name: a\nsearch: {low: 1}\n").search.low == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nsearch: {low: 1}\nstepps: 3\n", "line 3: unknown key 'stepps': did you mean 'steps'?"),
        ("name: a\nsearch:\n  low: 1\n  hihg: 2\n", "line 4: unknown key 'search.hihg': did you mean 'high'?"),
        ("name: a\nsearch:\n  low: x\n", "line 3: search.low: must be a number, got 'x'"),
        ("name: a\nsearch: 3\n", "line 2: search: must be keys and values, one per line or {key: value}, got 3"),
        ("search: {low: 1}\n", "'name' is missing"),
        ("name: a\nname: b\nsearch: {low: 1}\n", "line 2: duplicate key 'name'"),
        ("name: a\nsearch: {low: 1}\nsteps: many\n", "line 3: steps: "),
        ("name: [a\n", "is not YAML"),
        ("- a\n", "expected keys and values, got a list"),
        ("", "got nothing"),
        ("name: &a [x]\nsearch: *a\n", "quote a glob: '*name'"),
        ("name: !!python/object/apply:os.system ['true']\n", "line 1: tags (!!name) are not supported"),
        ('name: !!int ""\nsearch: {low: 1}\n', "line 1: tags"),
        ("name: " + "[" * 60_000, "line 1: nested more than 50 deep"),
        ("name: " + "{a: " * 60_000, "line 1: nested more than 50 deep"),
        ("- " * 60_000, "line 1: nested more than 50 deep"),
        ("".join(" " * i + "a:\n" for i in range(60)), "line 51: nested more than 50 deep"),
        ("name: a\nsearch: {low: 1}\nsteps: " + "9" * 5000, "line 3: a number of 5000 characters; at most 40"),
        ("name: a\nsearch: {low: 1}\nsteps: 0x" + "f" * 5000, "line 3: a number of 5002 characters"),
        ("name: a\nsearch: {low: 1}\nsteps: 1" + ":59" * 2000, "line 3: a number of 6001 characters"),
        ("name: a\nsearch: {low: 1" + ":59" * 2000 + ".5}\n", "line 2: a number of 6003 characters"),
        ("name: a\nsearch: {low: 1}\nsteps: 0b_\n", "line 3: '0b_' is not a number"),
        ("name: 2026-99-99\nsearch: {low: 1}\n", "line 1: '2026-99-99' is not a date; quote it"),
        ("name: 2026-01-01\nsearch: {low: 1}\n", "line 1: name: must be text; quote it"),
        ("name: a\nsearch: {low: .inf}\n", "line 2: search.low: "),
        ("name: a\nsearch: {low: .nan}\n", "line 2: search.low: "),
        ("name: a\nsearch: {low: true}\n", "line 2: search.low: must be a number, not true or false"),
        ("name: a\nsearch: {low: 1}\nsteps: true\n", "line 3: steps: must be a number, not true"),
        ("1: a\nsearch: {low: 1}\n", "line 1: the key '1' must be text; quote it"),
        ("name: a\nsearch: {low: 1}\non: x\n", "line 3: the key 'on' must be text; quote it"),
        ("name: a\nsearch: {low: 1}\n~: x\n", "line 3: the key '~' must be text; quote it"),
        ("name: a\nsearch: {low: 1}\n? [a, b]\n: x\n", "line 3: a key must be text"),
        ("name: a\nsearch: {<<: {low: 1}}\n", "line 2: the key '<<' must be text"),
        ("name: a\nsearch: {low: 1, low: 2}\n", "line 2: duplicate key 'low'"),
        ("name: a\n---\nname: b\n", "is not YAML"),
        ("name: \x00\n", "is not YAML"),
        ("name: a\n" + "".join(f"key{i}: {i}\n" for i in range(10_000)), "and 9981 more"),
        ("#" * (MOST_BYTES + 1), "larger than"),
    ],
)
def test_errors_name_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(FileError) as wrong:
        read(tmp_path, text)
    assert message in str(wrong.value)
    assert "file.yaml" in str(wrong.value)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"name: \xff\xfe\n", "is not UTF-8 text"),
        ("name: a\nsearch: {low: 1}\n".encode("utf-16"), "is not UTF-8 text"),
        (bytes(range(256)), "is not UTF-8 text"),
        (b"PK\x03\x04", "is not YAML"),
    ],
)
def test_a_file_that_is_not_text_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_bytes(data)
    with pytest.raises(FileError, match=message):
        read_yaml(tmp_path / "file.yaml", Outer)


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_bytes("name: a\nsearch: {low: 1}\n".encode("utf-8-sig"))
    assert read_yaml(tmp_path / "file.yaml", Outer).name == "a"


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """Reading a device or a pipe would not end."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name, message in (("pipe", "not a regular file"), ("zero", "not a regular file"), ("folder", "Is a directory")):
        with pytest.raises(FileError, match=f"cannot read .*{name}.yaml: {message}"):
            read_yaml(tmp_path / f"{name}.yaml", Outer)


def test_the_largest_file_is_read_within_seconds(tmp_path: Path) -> None:
    text = "name: a\nsearch: {low: 1}\nsteps: [" + "[x,{y: 1}]," * ((MOST_BYTES - 50) // 11) + "]\n"
    started = time.monotonic()
    with pytest.raises(FileError, match="steps"):
        read(tmp_path, text)
    assert time.monotonic() - started < 20


def test_read_yaml_list(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("- {low: 1}\n- low: 2\n  high: 3\n")
    assert [inner.high for inner in read_yaml_list(path, Inner)] == [1.0, 3.0]
    path.write_text("- {low: 1}\n- low: 2\n  hihg: 3\n- {}\n")
    with pytest.raises(FileError) as wrong:
        read_yaml_list(path, Inner)
    assert "line 3: unknown key '1.hihg': did you mean 'high'?" in str(wrong.value)
    assert "line 4: '2.low' is missing" in str(wrong.value)
    path.write_text("low: 1\n")
    with pytest.raises(FileError, match="expected a list, got a dict"):
        read_yaml_list(path, Inner)


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileError) as wrong:
        read(tmp_path, "nmae: a\nsearch: {low: x}\n")
    assert len(str(wrong.value).splitlines()) == 3


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read_yaml(tmp_path / "none.yaml", Outer)


def test_without_a_close_match_all_known_names_are_listed() -> None:
    assert suggestion("xyz", ["b", "a"]) == "; known: a, b"
