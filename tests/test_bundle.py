"""Broken bundles in `submissions/` never affect other rows."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import Bench
from examples import record, write
from spoiled import NOT_UTF8, ODD_FILES, SPOILS, in_place_of, make_bundle, repack, run_of
from submitted import Packed
from test_dashboard import PAGES, Open, opened, texts  # noqa: F401 - opened is a fixture

from results import load_table
from results.board import board, constant_note
from results.bundle import read_verdict, submissions
from results.store import LEAKS, Store

HARMLESS = ("a folder name that is not UTF-8", "more: a folder")  # an extra empty folder


@pytest.fixture(autouse=True)
def _removed(tmp_path: Path) -> Iterator[None]:
    """Remove folders that are too deep for shutil.rmtree, which pytest uses."""
    yield
    if any(tmp_path.glob("submissions/*/d")):
        subprocess.run(["rm", "-rf", tmp_path / "submissions"], check=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Return (template of `store`, its board). Read only."""
    folder = tmp_path_factory.mktemp("sound")
    for replicate in range(3):
        write(Store(folder / "store"), record(replicate, source="none", cell="a" * 64))
    make_bundle(folder / "submissions", "good")
    before = board(load_table(folder / "store"))
    assert set(before["source"]) == {"none", "good"}
    return folder, before


@pytest.fixture
def store(sound: tuple[Path, pd.DataFrame], tmp_path: Path) -> Path:
    """A store with runs of `none`, next to a valid bundle."""
    shutil.copytree(sound[0], tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "store"


def spoiled(store: Path, how: str) -> Path:
    """Add a corrupted bundle."""
    folder = make_bundle(store.parent / "submissions", "mine")
    assert "mine" in set(load_table(store)["source"]), "shown before it is corrupted"
    SPOILS[how](folder)
    return folder


@pytest.mark.parametrize("how", SPOILS)
def test_corrupted_bundle_affects_only_its_own_row(how: str, store: Path, sound: tuple[Path, pd.DataFrame]) -> None:
    before = sound[1]
    spoiled(store, how)
    for _ in range(2):  # with and without a cache
        after = load_table(store)
        listed = [line for line in after.attrs["unreadable"] if "submissions" in line]
        assert bool(listed) == (how not in HARMLESS), listed
        assert all(line.isprintable() and line.isascii() for line in listed)
        rest = board(after[after["source"] != "mine"])
        pd.testing.assert_frame_equal(rest, before)
        assert constant_note(after) is not None


@pytest.mark.parametrize("how", ["1,200 folders deep", "a name of its own that is not UTF-8", "verdict: a device"])
def test_commands_and_pages_work_next_to_a_corrupted_bundle(
    how: str,
    store: Path,
    bench: Bench,
    opened: Open,  # noqa: F811
) -> None:
    spoiled(store, how)
    words = ("--store", store)
    for command in (("table",), ("table", "--tiers"), ("compare", "good", "none"), ("claim", "good > none")):
        result = bench(*command, *words)
        assert result.code in (0, 4, 5), result.err
        assert "good" in result.out
    for page in PAGES:
        app = opened(store, page=page)
        assert not app.exception, app.exception
        "\n".join(map(str, app.expander)).encode()
        assert "good" in texts(app) or page in ("Scaling", "Run", "Matrix", "Images")


def test_valid_bundle_is_verified_next_to_corrupted_ones(packed: Packed, bench: Bench, tmp_path: Path) -> None:
    here = packed.copy(tmp_path)
    for number, how in enumerate(
        ("1,200 folders deep", "verdict: 6 GB", "no runs", "a name of its own that is not UTF-8")
    ):
        SPOILS[how](make_bundle(here.bundle.parent, f"other-{number}"))
    (tmp_path / "bench-store").mkdir()
    result = bench("submit", "verify", here.bundle, "--manifest", here.manifest, "--store", tmp_path / "bench-store")
    assert result.code == 0, result.out + result.err


@pytest.mark.parametrize("how", [how for how in SPOILS if not how.startswith("verdict: ")])
def test_corrupted_bundle_fails_verification(how: str, bench: Bench, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "submissions")
    SPOILS[how](folder)
    result = bench("submit", "verify", *tmp_path.glob("submissions/*[!n]"))
    assert result.code in (1, 2)
    assert "Traceback" not in result.err
    for line in (result.out + result.err).splitlines():
        assert line.isprintable(), line


@pytest.mark.parametrize("odd", ["a device", "a pipe", "6 GB", "a link to itself", "empty"])
def test_submissions_is_not_a_folder(odd: str, store: Path) -> None:
    folder = store.parent / "submissions"
    folder.rename(store.parent / "away")
    ODD_FILES[odd](folder)
    table = load_table(store)
    assert set(table["source"]) == {"none"}
    assert [line for line in table.attrs["unreadable"] if "submissions" in line]


def test_bundle_that_is_a_link_is_not_shown(store: Path) -> None:
    folder = make_bundle(store.parent / "elsewhere", "mine")
    (store.parent / "submissions" / "mine").symlink_to(folder)
    table = load_table(store)
    assert set(table["source"]) == {"none", "good"}
    assert any("is a symbolic link" in line for line in table.attrs["unreadable"])


def test_other_files_are_ignored(store: Path) -> None:
    place = store.parent / "submissions"
    (place / "mine-networks").mkdir()
    (place / "notes.txt").write_text("x")
    os.mkfifo(place / "pipe")
    (place / NOT_UTF8).mkdir()
    assert submissions(store)[1] == []


def test_unreadable_verdict_is_reported(store: Path) -> None:
    spoiled(store, "verdict: a pipe")
    assert "mine.verdict.json cannot be read" in str(submissions(store)[1])
    assert read_verdict(store.parent / "submissions" / "mine") is None


# -- unexpected files in the store itself ----------------------------------------------------


@pytest.mark.parametrize("name", ["record.json", "evidence.npz"])
@pytest.mark.parametrize("odd", ODD_FILES)
def test_odd_file_in_the_store_is_listed_and_others_are_read(odd: str, name: str, store: Path) -> None:
    before = load_table(store)
    in_place_of(run_of(store) / name, ODD_FILES[odd])
    for _ in range(2):
        after = load_table(store)
        if name == "record.json" or odd in ("a folder", "a pipe", "a socket", "a device", "a link to itself"):
            assert len(after) == len(before) - 1
            assert any(name in line for line in after.attrs["unreadable"]), after.attrs["unreadable"]
        board(after)


@pytest.mark.parametrize("odd", ODD_FILES)
def test_odd_finding_in_the_store_is_listed(odd: str, store: Path) -> None:
    in_place_of(store / LEAKS / "soda" / "none-0.json", ODD_FILES[odd])
    table = load_table(store)
    assert board(table)["touched"].isna().all()
    assert any("none-0.json: leak finding cannot be read" in line for line in table.attrs["unreadable"]), (
        "otherwise a leak would be hidden"
    )


def test_odd_folders_in_the_store_hide_nothing(store: Path, bench: Bench) -> None:
    before = load_table(store)
    (store / "loop").symlink_to("loop")
    for above in (store, run_of(store).parent, run_of(store).parent.parent):
        (above / NOT_UTF8).mkdir()
    (run_of(store).parent / f"r9-{NOT_UTF8}").mkdir()
    copied = run_of(store).parent / f"r9-{NOT_UTF8}" / "record.json"
    copied.write_bytes((run_of(store) / "record.json").read_bytes())
    after = load_table(store)
    pd.testing.assert_frame_equal(after, before)
    [line] = [line for line in after.attrs["unreadable"] if "r9-" in line]
    assert "copied or renamed" in line
    assert line.isascii()
    assert bench("table", "--store", store).code == 0


def test_synthetic_bundle_is_shown(store: Path) -> None:
    """Otherwise the tests above would test nothing."""
    folder = make_bundle(store.parent / "submissions", "mine")
    repack(folder)
    assert set(load_table(store)["source"]) == {"none", "good", "mine"}
