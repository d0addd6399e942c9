"""What lies in `submissions/` costs its own row and nothing else."""

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

HARMLESS = ("a folder name that is not UTF-8", "more: a folder")  # a folder more, with nothing in it


@pytest.fixture(autouse=True)
def _removed(tmp_path: Path) -> Iterator[None]:
    """Python's own rmtree, which pytest uses, gives up on folders as deep as `deep_folders` makes them."""
    yield
    if any(tmp_path.glob("submissions/*/d")):
        subprocess.run(["rm", "-rf", tmp_path / "submissions"], check=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """(what `store` is a copy of, its board). Read only."""
    folder = tmp_path_factory.mktemp("sound")
    for replicate in range(3):
        write(Store(folder / "store"), record(replicate, source="none", cell="a" * 64))
    make_bundle(folder / "submissions", "good")
    before = board(load_table(folder / "store"))
    assert set(before["source"]) == {"none", "good"}
    return folder, before


@pytest.fixture
def store(sound: tuple[Path, pd.DataFrame], tmp_path: Path) -> Path:
    """A store with `none` on it, beside a folder of submissions with one bundle that is as it must be."""
    shutil.copytree(sound[0], tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "store"


def spoiled(store: Path, how: str) -> Path:
    """One more bundle, spoiled."""
    folder = make_bundle(store.parent / "submissions", "mine")
    assert "mine" in set(load_table(store)["source"]), "it would be shown"
    SPOILS[how](folder)
    return folder


@pytest.mark.parametrize("how", SPOILS)
def test_a_spoiled_bundle_costs_its_own_row_alone(how: str, store: Path, sound: tuple[Path, pd.DataFrame]) -> None:
    before = sound[1]
    spoiled(store, how)
    for _ in range(2):  # with and without a cache
        after = load_table(store)
        told = [line for line in after.attrs["unreadable"] if "submissions" in line]
        assert bool(told) == (how not in HARMLESS), told
        assert all(line.isprintable() and line.isascii() for line in told)
        rest = board(after[after["source"] != "mine"])
        pd.testing.assert_frame_equal(rest, before)
        assert constant_note(after) is not None


@pytest.mark.parametrize("how", ["1,200 folders deep", "a name of its own that is not UTF-8", "verdict: a device"])
def test_commands_and_pages_go_on_beside_a_spoiled_bundle(
    how: str,
    store: Path,
    bench: Bench,
    opened: Open,  # noqa: F811
) -> None:
    spoiled(store, how)
    words = ("--store", store)
    for command in (("table",), ("table", "--tiers"), ("compare", "good", "none"), ("claim", "good > none")):
        told = bench(*command, *words)
        assert told.code in (0, 4, 5), told.err
        assert "good" in told.out
    for page in PAGES:
        app = opened(store, page=page)
        assert not app.exception, app.exception
        "\n".join(map(str, app.expander)).encode()
        assert "good" in texts(app) or page in ("Scaling", "Run", "Matrix", "Images")


def test_a_good_bundle_is_verified_beside_a_spoiled_one(packed: Packed, bench: Bench, tmp_path: Path) -> None:
    here = packed.copy(tmp_path)
    for number, how in enumerate(
        ("1,200 folders deep", "verdict: 6 GB", "no runs", "a name of its own that is not UTF-8")
    ):
        SPOILS[how](make_bundle(here.bundle.parent, f"other-{number}"))
    (tmp_path / "bench-store").mkdir()
    told = bench("submit", "verify", here.bundle, "--manifest", here.manifest, "--store", tmp_path / "bench-store")
    assert told.code == 0, told.out + told.err


@pytest.mark.parametrize("how", [how for how in SPOILS if not how.startswith("verdict: ")])
def test_a_spoiled_bundle_is_refused_in_words(how: str, bench: Bench, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "submissions")
    SPOILS[how](folder)
    told = bench("submit", "verify", *tmp_path.glob("submissions/*[!n]"))
    assert told.code in (1, 2)
    assert "Traceback" not in told.err
    for line in (told.out + told.err).splitlines():
        assert line.isprintable(), line


@pytest.mark.parametrize("odd", ["a device", "a pipe", "6 GB", "a link to itself", "empty"])
def test_submissions_that_is_no_folder(odd: str, store: Path) -> None:
    folder = store.parent / "submissions"
    folder.rename(store.parent / "away")
    ODD_FILES[odd](folder)
    found = load_table(store)
    assert set(found["source"]) == {"none"}
    assert [line for line in found.attrs["unreadable"] if "submissions" in line]


def test_a_bundle_that_is_a_link_is_not_shown(store: Path) -> None:
    folder = make_bundle(store.parent / "elsewhere", "mine")
    (store.parent / "submissions" / "mine").symlink_to(folder)
    found = load_table(store)
    assert set(found["source"]) == {"none", "good"}
    assert any("a link, and a bundle is a folder" in line for line in found.attrs["unreadable"])


def test_what_is_no_bundle_is_passed_over(store: Path) -> None:
    place = store.parent / "submissions"
    (place / "mine-networks").mkdir()
    (place / "notes.txt").write_text("x")
    os.mkfifo(place / "pipe")
    (place / NOT_UTF8).mkdir()
    assert submissions(store)[1] == []


def test_a_verdict_that_cannot_be_read_is_said(store: Path) -> None:
    spoiled(store, "verdict: a pipe")
    assert "mine.verdict.json cannot be read" in str(submissions(store)[1])
    assert read_verdict(store.parent / "submissions" / "mine") is None


# -- the store is the user's own, and may hold strange things too ----------------------------------------------------


@pytest.mark.parametrize("name", ["record.json", "evidence.npz"])
@pytest.mark.parametrize("odd", ODD_FILES)
def test_a_strange_file_in_the_store_is_named_and_the_others_stand(odd: str, name: str, store: Path) -> None:
    before = load_table(store)
    in_place_of(run_of(store) / name, ODD_FILES[odd])
    for _ in range(2):
        after = load_table(store)
        if name == "record.json" or odd in ("a folder", "a pipe", "a socket", "a device", "a link to itself"):
            assert len(after) == len(before) - 1
            assert any(name in line for line in after.attrs["unreadable"]), after.attrs["unreadable"]
        board(after)


@pytest.mark.parametrize("odd", ODD_FILES)
def test_a_strange_finding_in_the_store_is_named(odd: str, store: Path) -> None:
    in_place_of(store / LEAKS / "soda" / "none-0.json", ODD_FILES[odd])
    found = load_table(store)
    assert board(found)["touched"].isna().all()
    assert any("none-0.json: what it says" in line for line in found.attrs["unreadable"]), "or a leak would be hidden"


def test_strange_folders_in_the_store_hide_nothing(store: Path, bench: Bench) -> None:
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


def test_a_record_that_was_made_by_hand_and_repacked_is_shown(store: Path) -> None:
    """The helper of these tests makes what the board takes: else they would test nothing."""
    folder = make_bundle(store.parent / "submissions", "mine")
    repack(folder)
    assert set(load_table(store)["source"]) == {"none", "good", "mine"}
