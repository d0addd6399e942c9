"""A folder for temporary files whose name is too long for a socket, is not there, or cannot be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kills import command, environment

from pretrain_sources import sockets

PROBE = (
    "import multiprocessing.connection as c, multiprocessing.util as u, tempfile\n"
    "from pretrain_sources.sockets import shorten_socket_paths as s\n"
    "s(); s(); c.Listener(family='AF_UNIX').close(); print(u.get_temp_dir()); print(tempfile.gettempdir())"
)


def long_folder(tmp_path: Path, size: int = 120) -> Path:
    folder = tmp_path / ("long-" + "x" * max(1, size - len(str(tmp_path)) - 6))
    folder.mkdir()
    return folder


def tried(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code]
    return subprocess.run(
        words, env=environment() | {"TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )


def test_sockets_go_elsewhere_and_temporary_files_stay(tmp_path: Path) -> None:
    folder = long_folder(tmp_path)
    done = tried(PROBE, folder)
    assert done.returncode == 0, done.stderr
    sockets_in, files_in = done.stdout.split()
    assert not sockets_in.startswith(str(tmp_path))
    assert files_in == str(folder)
    assert not Path(sockets_in).exists(), "it is deleted at the end"


def test_the_longest_that_fits_is_used(tmp_path: Path) -> None:
    base = Path("/tmp") / f"s{os.getpid()}"
    for size, used in ((sockets.LONGEST, True), (sockets.LONGEST + 1, False)):
        folder = base / ("x" * (size - len(str(base)) - 1))
        folder.mkdir(parents=True)
        done = tried(PROBE, folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(base)) == used
        folder.rmdir()
    base.rmdir()


def test_without_any_short_folder_it_says_what_to_set(tmp_path: Path) -> None:
    code = PROBE.replace("s(); s()", "import pretrain_sources.sockets as p; p.SHORT = (); s()")
    done = tried(code, long_folder(tmp_path))
    assert "set TMPDIR to a path of at most" in done.stderr


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_folder_that_is_none_is_passed_over(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    if kind == "a file":
        folder.touch()
    done = tried(PROBE, folder)
    assert done.returncode == 0, done.stderr
    assert not any(place.startswith(str(folder)) for place in done.stdout.split())


@pytest.mark.parametrize(
    "kind", ["long", *(pytest.param(kind, marks=pytest.mark.stress) for kind in ("missing", "a file"))]
)
def test_a_run_takes_any_tmpdir(kind: str, matrix_file: Path, scenes: Path, tmp_path: Path) -> None:
    folder = long_folder(tmp_path) if kind == "long" else tmp_path / "none"
    if kind == "a file":
        folder.touch()
    words = command(matrix_file, tmp_path / "store", scenes, "--jobs", "2")
    done = subprocess.run(
        words, env=environment() | {"TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs done" in done.stdout


def test_a_corpus_is_made_by_processes_under_a_long_tmpdir(scenes: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for image in sorted((scenes / "scenes" / "unlabelled").iterdir())[:6]:
        shutil.copy(image, pool)
    words = [sys.executable, "-c", "from bench.cli.app import main; main()", "corpus", "make", "--recipe"]
    words += ["satir/felzenszwalb", "--pool", str(pool), "--out", str(tmp_path / "corpus"), "--jobs", "2"]
    done = subprocess.run(
        words, env=environment() | {"TMPDIR": str(long_folder(tmp_path))}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
