"""Only regular files are read: a device or a pipe would block or never end."""

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
NOT_REGULAR = pytest.mark.parametrize("make", [device, pipe, folder])


@NOT_REGULAR
def test_only_regular_files_are_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        read_regular(tmp_path / "x", 10)


def test_the_size_limit(tmp_path: Path) -> None:
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


@NOT_REGULAR
@pytest.mark.parametrize(
    "fields",
    [
        {"checkpoints": [{"backbones": ["tiny"], "path": "../odd-file"}]},
        {"recipe": {"teacher": {"kind": "sam", "model": "vit_b", "checkpoint": "../odd-file"}}},
        {"corpus": {"path": "../odd-file"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_files_named_in_a_card_must_be_regular(
    make: Callable[[Path], None], fields: dict[str, object], scenes: Path, bench: Bench, tmp_path: Path
) -> None:
    make(tmp_path / "odd-file")
    mine = card(tmp_path, **fields)
    matrix = write_matrix(tmp_path)
    started = time.monotonic()
    calls = [("submit", "check", mine), ("plan", "--matrix", matrix, "--source", mine, "--data", scenes)]
    calls += [("leaks", "--source", mine, "--target", "scenes", "--data", scenes)] if "corpus" in fields else []
    for words in calls:
        result = bench(*words)
        assert result.code == 1
        assert "/odd-file" in result.out + result.err
        assert "Traceback" not in result.err
    assert time.monotonic() - started < 30


@NOT_REGULAR
def test_files_in_a_corpus_must_be_regular(
    make: Callable[[Path], None], scenes: Path, bench: Bench, tmp_path: Path
) -> None:
    for name in ("images", "labels"):
        (tmp_path / "corpus" / name).mkdir(parents=True)
    image = next((scenes / "scenes" / "unlabelled").rglob("*.png"), None) or next(
        (scenes / "scenes" / "unlabelled").rglob("*.jpg")
    )
    (tmp_path / "corpus" / "images" / f"a{image.suffix}").write_bytes(image.read_bytes())
    make(tmp_path / "corpus" / "labels" / "a.png")
    result = bench("corpus", "check", tmp_path / "corpus", "--classes", 3)
    assert result.code == 1
    assert "a.png" in result.err
    make(tmp_path / "corpus" / "manifest.json")
    result = bench("corpus", "check", tmp_path / "corpus")
    assert result.code == 1
    assert "manifest.json" in result.err


@NOT_REGULAR
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
def test_files_named_on_the_command_line_must_be_regular(
    words: tuple[str, ...], make: Callable[[Path], None], scenes: Path, bench: Bench, tmp_path: Path
) -> None:
    make(tmp_path / "x.yaml")
    places = {"X": tmp_path / "x.yaml", "POOL": scenes / "scenes" / "unlabelled", "BUNDLE": SHIPPED}
    result = bench(*(places.get(word, word) for word in words))
    assert result.code == 1
    assert "x.yaml" in result.err
    assert "Traceback" not in result.err


@NOT_REGULAR
@pytest.mark.parametrize("name", ["train_infrared.txt", "JPEGImages/0", "SegmentationClassOne/0"])
def test_files_of_a_target_must_be_regular(name: str, make: Callable[[Path], None], soda: Path, bench: Bench) -> None:
    base = soda / "soda" / "InfraredSemanticLabel"
    path = sorted((base / name.removesuffix("/0")).iterdir())[0] if name.endswith("/0") else base / name
    path.unlink()
    make(path)
    result = bench("data", "check", "soda", "--data", soda)
    assert result.code == 1
    assert path.name in result.err
