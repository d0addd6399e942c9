"""Atomic writes: leftovers of killed processes are deleted, files that are being written are kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from spoiled import ODD_FILES

import safe_io.files
from results.store import Store, write_atomic
from safe_io.files import STALE_S, aside_of, clear_leftovers, is_alive, read_regular, this_process, write_whole

DYING = (
    "import os, pathlib, signal, sys\n"
    "from safe_io.files import whole\n"
    "with whole(pathlib.Path(sys.argv[1]), sync=sys.argv[2] == 'sync') as aside:\n"
    "    aside.write_bytes(b'x' * 1000)\n"
    "    {end}\n"
)


def leftovers(folder: Path) -> list[Path]:
    return sorted(folder.rglob(".*.tmp"))


def left_by_a_kill(path: Path, sync: str = "sync") -> Path:
    """Return the temporary file of a process that was killed while it wrote `path`."""
    code = DYING.format(end="os.kill(os.getpid(), signal.SIGKILL)")
    before = set(leftovers(path.parent)) if path.parent.is_dir() else set()
    done = subprocess.run([sys.executable, "-c", code, str(path), sync], check=False)
    assert done.returncode == -signal.SIGKILL
    [left] = set(leftovers(path.parent)) - before
    return left


def older(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_writing_a_file_deletes_its_leftovers(tmp_path: Path) -> None:
    other = left_by_a_kill(tmp_path / "other")
    left_by_a_kill(tmp_path / "file")
    write_atomic(tmp_path / "file", b"whole")
    assert leftovers(tmp_path) == [other], "that of another file is not looked at: a folder may hold many thousands"
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_opening_a_store_for_writing_deletes_all_leftovers(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for path in (
        "cache/a.json",
        "units/tune/f/checkpoint.pt",
        "units/teacher/t/ab/x.parquet",
        "t/p/s/b/r0-1/record.json",
    ):
        left_by_a_kill(tmp_path / path, "no sync")
    assert len(leftovers(tmp_path)) == 4
    store.make()
    assert not leftovers(tmp_path)


def test_files_of_a_live_process_are_kept(tmp_path: Path) -> None:
    code = DYING.format(end="print(aside, flush=True); input()")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "file"), "sync"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writing:
        assert writing.stdin is not None
        assert writing.stdout is not None
        aside = Path(writing.stdout.readline().strip())
        older(aside, 3 * STALE_S)
        Store(tmp_path).make()
        write_whole(tmp_path / "file", b"mine")
        assert aside.exists(), "however long it takes"
        writing.stdin.write("\n")
    assert writing.returncode == 0
    assert (tmp_path / "file").read_bytes() == b"x" * 1000


@pytest.mark.parametrize("name", [".file.0123abcd.77.88.0.tmp", ".file.77.tmp"])  # another host, an earlier version
def test_leftovers_of_unknown_processes_are_kept_for_a_day(name: str, tmp_path: Path) -> None:
    aside = tmp_path / name
    aside.write_bytes(b"x")
    clear_leftovers(tmp_path)
    assert aside.exists()
    older(aside, STALE_S + 60)
    clear_leftovers(tmp_path)
    assert not aside.exists()


def test_a_reused_pid_is_another_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host, pid, start = this_process().split(".")
    assert is_alive(f"{host}.{pid}.{start}")
    assert is_alive(f"{host}.{pid}.{int(start) + 1}") is False
    assert is_alive(f"00000000.{pid}.{start}") is None
    aside = tmp_path / f".file.{host}.{pid}.{int(start) + 1}.0.tmp"
    aside.write_bytes(b"x")
    write_whole(tmp_path / "file", b"")
    assert not aside.exists()
    monkeypatch.setattr(safe_io.files, "_start", lambda pid: 0)  # a system that does not say
    assert is_alive(f"{host}.{pid}.{start}")


def test_leftover_folders_are_deleted_and_other_files_kept(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from safe_io.files import aside_of\n"
        "made = aside_of(pathlib.Path(sys.argv[1])); made.mkdir(); (made / 'x').touch()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "bundle")], check=True)
    mine = [tmp_path / name for name in (".bundle.tmp", ".notes.txt.tmp", "bundle.1.tmp", ".bundle")]
    for path in mine:
        path.touch()
        older(path, 9 * STALE_S)
    assert len(list(tmp_path.iterdir())) == 5
    clear_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(mine)


def test_the_longest_name_of_a_file_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    left = left_by_a_kill(path)
    write_whole(path, b"x")
    assert not left.exists()
    assert path.read_bytes() == b"x"
    assert len(os.fsencode(aside_of(path).name)) <= 255


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "file", b"x")
    (tmp_path / "file").rmdir()
    assert not list(tmp_path.iterdir())


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
def test_only_regular_files_are_read(odd: str, why: str, tmp_path: Path) -> None:
    ODD_FILES[odd](tmp_path / "file")
    with pytest.raises(OSError, match=why):
        read_regular(tmp_path / "file", 1000, links=False)
    with pytest.raises(OSError) as refused:  # noqa: PT011 - of any kind, and never a hang
        read_regular(tmp_path / "file", 1000, links=True)
    assert odd not in ("a device", "a pipe") or refused.value.strerror == "not a regular file"


def test_a_regular_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to("file")
    assert read_regular(path, 1000, links=False) == b"x" * 1000
    assert read_regular(tmp_path / "link", 1000, links=True) == b"x" * 1000
    with pytest.raises(OSError, match="larger than 999 bytes"):
        read_regular(path, 999, links=False)
    with pytest.raises(OSError, match="larger than 3 bytes"):
        read_regular(Path("/proc/self/status"), 3)  # says that it has 0 bytes
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nothing", 1)


def test_an_error_without_a_number_keeps_its_message(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^the connection broke$"), safe_io.files.whole(tmp_path / "file"):
        raise OSError("the connection broke")
    assert list(tmp_path.iterdir()) == []
