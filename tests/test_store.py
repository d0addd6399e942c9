import os
import subprocess
import sys
from pathlib import Path

import pytest
from examples import evidence, record

from results.record_files import read_records, write_record
from results.store import Store, StoreError, read_json_lines, slug, write_atomic


def test_killed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    code = (
        "import os, signal, sys, results.store as s\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "s.write_atomic(__import__('pathlib').Path(sys.argv[1]), b'new, longer')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"


def test_failed_rename_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    path = tmp_path / "file"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(StoreError, match="Input/output error"):
        write_atomic(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    "name", ["none/long", "../../etc", ".", "..", "", "a b\n", "satir/top-4", "C:\\x", "~shuffled"]
)
def test_no_name_leaves_the_store(name: str) -> None:
    assert slug(name) not in ("", ".", "..")
    assert not set(slug(name)) & set("/\\ \n:")


def test_store_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match="--store"):
            Store(folder).make()


def test_full_disk_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    store = Store(small_disk)
    write_record(store, record(0), evidence(0))
    with pytest.raises(StoreError, match="free some space"):
        write_atomic(small_disk / "large", os.urandom(2**21))
    assert not list(small_disk.glob(".large*"))
    assert read_records(store) == ([record(0)], [])


def test_truncated_line_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert list(read_json_lines(path)) == [{"a": 1}, {"a": 2}]
    assert list(read_json_lines(tmp_path / "missing")) == []
