"""Only regular files are read, whatever names them: a device or a pipe would be read, or waited for, without end."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Bench, write_matrix

from pretrain_sources.file_state import FileChangedError, read_unchanged
from safe_io.files import read_regular


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


SHIPPED = Path(__file__).parents[1] / "results" / "runs"
STRANGE = pytest.mark.parametrize("make", [device, pipe, folder])


@STRANGE
def test_what_is_no_regular_file_is_not_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        read_regular(tmp_path / "x", 10)


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "x", 10) == b"0123456789"
    with pytest.raises(OSError, match="larger than 9 bytes"):
        read_regular(tmp_path / "x", 9)
    with pytest.raises(FileChangedError):
        read_unchanged(tmp_path / "x", "0" * 64)


def card(here: Path, **fields: object) -> Path:
    made = {"name": "mine", "description": "x", "licence": "x", "contact": "x", "training_data": [], **fields}
    (here / "mine").mkdir()
    (here / "mine" / "card.yaml").write_text(yaml.safe_dump(made))
    return here / "mine"


@STRANGE
@pytest.mark.parametrize(
    "fields",
    [
        {"checkpoints": [{"backbones": ["tiny"], "path": "../odd-file"}]},
        {"recipe": {"teacher": {"kind": "sam", "model": "vit_b", "checkpoint": "../odd-file"}}},
        {"corpus": {"path": "../odd-file"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_a_card_names_is_a_regular_file_for_every_command(
    make: Callable[[Path], None], fields: dict[str, object], scenes: Path, bench: Bench, tmp_path: Path
) -> None:
    make(tmp_path / "odd-file")
    mine = card(tmp_path, **fields)
    matrix = write_matrix(tmp_path)
    started = time.monotonic()
    calls = [("submit", "check", mine), ("plan", "--matrix", matrix, "--source", mine, "--data", scenes)]
    calls += [("leaks", "--source", mine, "--target", "scenes", "--data", scenes)] if "corpus" in fields else []
    for words in calls:
        told = bench(*words)
        assert told.code == 1
        assert "/odd-file" in told.out + told.err
        assert "Traceback" not in told.err
    assert time.monotonic() - started < 30


@STRANGE
def test_a_corpus_with_a_pipe_in_it_cannot_be_used(
    make: Callable[[Path], None], scenes: Path, bench: Bench, tmp_path: Path
) -> None:
    for name in ("images", "labels"):
        (tmp_path / "corpus" / name).mkdir(parents=True)
    image = next((scenes / "scenes" / "unlabelled").rglob("*.png"), None) or next(
        (scenes / "scenes" / "unlabelled").rglob("*.jpg")
    )
    (tmp_path / "corpus" / "images" / f"a{image.suffix}").write_bytes(image.read_bytes())
    make(tmp_path / "corpus" / "labels" / "a.png")
    told = bench("corpus", "check", tmp_path / "corpus", "--classes", 3)
    assert told.code == 1
    assert "a.png" in told.err
    make(tmp_path / "corpus" / "manifest.json")
    told = bench("corpus", "check", tmp_path / "corpus")
    assert told.code == 1
    assert "manifest.json cannot be read" in told.err


@STRANGE
@pytest.mark.parametrize(
    "words",
    [
        ("run", "--matrix", "X"),
        ("plan", "--matrix", "X"),
        ("corpus", "make", "--pool", "POOL", "--out", "out", "--recipe", "X"),
        ("run", "--matrix", "demo", "--teacher", "X"),
        ("claim", "--file", "X", "--store", "BUNDLE"),
        ("submit", "verify", "BUNDLE", "--manifest", "X"),
        ("leaks", "--source", "X", "--target", "scenes"),
    ],
    ids=" ".join,
)
def test_what_the_command_line_names_is_a_regular_file(
    words: tuple[str, ...], make: Callable[[Path], None], scenes: Path, bench: Bench, tmp_path: Path
) -> None:
    make(tmp_path / "x.yaml")
    places = {"X": tmp_path / "x.yaml", "POOL": scenes / "scenes" / "unlabelled", "BUNDLE": SHIPPED}
    told = bench(*(places.get(word, word) for word in words))
    assert told.code == 1
    assert "x.yaml" in told.err
    assert "Traceback" not in told.err


@STRANGE
@pytest.mark.parametrize("name", ["train_infrared.txt", "JPEGImages/0", "SegmentationClassOne/0"])
def test_a_target_with_a_pipe_in_it_is_named(name: str, make: Callable[[Path], None], soda: Path, bench: Bench) -> None:
    base = soda / "soda" / "InfraredSemanticLabel"
    path = sorted((base / name.removesuffix("/0")).iterdir())[0] if name.endswith("/0") else base / name
    path.unlink()
    make(path)
    told = bench("data", "check", "soda", "--data", soda)
    assert told.code == 1
    assert path.name in told.err
