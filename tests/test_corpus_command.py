import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from conftest import Bench
from filelock import FileLock
from made_corpus import bytes_of, make, write_groups
from PIL import Image

from bench.cli.app import cli
from pretrain_sources.card import Subset
from pretrain_sources.corpus import (
    check_corpus,
    read_corpus,
    read_manifest,
)
from pretrain_sources.pool import choose, read_pool
from pretrain_sources.recipe import Recipe


@pytest.fixture
def grouped(pool: Path) -> Path:
    write_groups(pool)
    return pool


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from bench.cli.app import main
from pretrain_sources.corpus.writer import CorpusWriter
real, count = CorpusWriter._label, 0
def one(*args):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
CorpusWriter._label = one
main()
"""


def test_a_killed_call_leaves_no_valid_corpus_and_can_be_resumed(pool: Path, tmp_path: Path, bench: Bench) -> None:
    calls = tmp_path / "calls"
    recipe = tmp_path / "mine.yaml"
    teacher = f"{{kind: python, entry: 'fake_teacher:make', version: '1', settings: {{calls: {calls}}}}}"
    recipe.write_text(f"name: mine\ndescription: d\nrecipe: {{teacher: {teacher}}}\n")
    words = ["corpus", "make", "--pool", str(pool), "--recipe", str(recipe), "--jobs", "1"]
    code = f"import sys\nsys.argv = ['bench', *{[*words, '--out', str(tmp_path / 'c')]!r}]\n" + KILLED.format(
        tests=str(Path(__file__).parent)
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert read_manifest(tmp_path / "c") is None
    assert len(calls.read_text().splitlines()) == 4
    for unfinished in (["check", tmp_path / "c"], ["rerank", tmp_path / "c", "--out", tmp_path / "r"]):
        assert "c is not finished: run the same command again" in bench("corpus", *unfinished).err
    assert "was begun with other settings" in bench(*words, "--top-k", 4, "--out", tmp_path / "c").err
    again = bench(*words, "--out", tmp_path / "c")
    assert again.code == 0, again.err
    assert len(calls.read_text().splitlines()) == 7
    assert bench(*words, "--out", tmp_path / "other").code == 0
    assert bytes_of(tmp_path / "c") == bytes_of(tmp_path / "other")


def test_rerank_can_bring_back_small_masks(pool: Path, tmp_path: Path, bench: Bench) -> None:
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(pool / "frame_05.png")
    make(pool, tmp_path / "large", recipe=Recipe(min_area_px=21))
    ranked = bench("corpus", "rerank", tmp_path / "large", "--out", tmp_path / "again", "--min-area", 0)
    assert ranked.code == 0, ranked.err
    make(pool, tmp_path / "all")
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "all")


def test_a_full_disk_is_reported_and_leaves_no_corpus(pool: Path, small_disk: Path, bench: Bench) -> None:
    (small_disk / "filler").write_bytes(b"x" * 1_000_000)
    words = ("corpus", "make", "--pool", pool, "--teacher", "fake_teacher:make", "--jobs", 1, "--out", small_disk / "c")
    full = bench(*words)
    assert full.code == 1
    assert "No space left on device" in full.err
    (small_disk / "filler").unlink()
    assert bench(*words).code == 0
    assert bench("corpus", "check", small_disk / "c").code == 0


def test_two_calls_at_once_do_not_mix(pool: Path, tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "c" / ".teacher").mkdir(parents=True)
    with FileLock(tmp_path / "c" / ".teacher" / ".lock"):
        other = bench("corpus", "make", "--pool", pool, "--teacher", "fake_teacher:make", "--out", tmp_path / "c")
    assert other.code == 1
    assert "another process is making" in other.err


def test_the_choices_are_those_of_the_recipe() -> None:
    options = {option.name: option for option in cli.commands["corpus"].commands["make"].params}  # type: ignore[attr-defined]
    for field in ("rank_by", "overlap", "uncovered"):
        assert options[field].type.choices == get_args(Recipe.model_fields[field].annotation)


def test_make_rerank_check(pool: Path, tmp_path: Path, bench: Bench) -> None:
    out = tmp_path / "corpus"
    made = bench("corpus", "make", "--pool", pool, "--teacher", "fake_teacher:make", "--out", out, "--jobs", 1)
    assert made.code == 0, made.err
    assert "7 images with 21 masks, 10 classes" in made.out
    assert "images per second" in made.out
    assert (
        "exists already" in bench("corpus", "make", "--pool", pool, "--teacher", "fake_teacher:make", "--out", out).out
    )
    assert not (out / ".teacher").exists()
    ranked = bench("corpus", "rerank", out, "--out", tmp_path / "two", "--top-k", 2, "--binary")
    assert "7 images with 21 masks, 2 classes" in ranked.out
    result = bench("corpus", "check", tmp_path / "two")
    assert result.code == 0
    assert "can be used; 7 images" in result.out
    assert "has 2 classes, not 3: omit --classes" in bench("corpus", "check", tmp_path / "two", "--classes", 3).err
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["recipe"]["binary"] is True


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--top-k", 0], "top-k 0: Input should be greater than or equal to 1"),
        (["--recipe", "satri"], "unknown source 'satri': did you mean 'satir'?"),
        (["--recipe", "imagenet"], "source 'imagenet' has no recipe"),
        (["--recipe", "satir/top-0"], "'satir' with top_k '0'"),
        (["--teacher", "felsenszwalb"], "unknown teacher 'felsenszwalb': did you mean 'felzenszwalb'?"),
        (["--teacher", "nowhere:make"], "no function nowhere:make"),
        (["--teacher", "fake_teacher:not_a_teacher"], "returned int, not a teacher"),
        (["--teacher", "fake_teacher:breaks", "--jobs", 2], "fake_teacher:breaks failed on POOL/frame_00.png: Zero"),
        (["--teacher", "fake_teacher:breaks"], "fake_teacher.py, line "),
        (["--teacher", "fake_teacher:wants"], "fake_teacher:wants could not be opened: TypeError: wants() missing 1"),
        (["--teacher", "fake_teacher:make", "--points-per-batch", 3], "--points-per-batch is for the teacher sam"),
        (["--teacher", "felzenszwalb", "--checkpoint", "x"], "--checkpoint is for the teacher sam"),
        (["--pool", "nowhere"], "no such folder of unlabelled images: nowhere"),
        (["--binary", "--uncovered", "ignore"], "there is only one class"),
        (["--pool", "EMPTY"], "no images in"),
        (["--out", "FULL"], "already holds something else"),
        (["--out", "POOL"], "is inside the pool"),
        (["--out", "BELOW"], "is inside the pool"),
        (["--recipe", "satir/n-100"], "'satir/n-100' is more than a recipe"),
        (["--recipe", "satir~shuffled"], "'satir~shuffled' is more than a recipe"),
        (["--teacher", "os:getcwd"], "os:getcwd is not offered to cards"),
    ],
)
def test_bad_calls_are_errors_with_a_hint(
    words: list[object], says: str, pool: Path, tmp_path: Path, bench: Bench
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "labels").mkdir(parents=True)
    (tmp_path / "full" / "labels" / "by_hand.txt").write_text("precious")
    places = {"EMPTY": tmp_path / "empty", "POOL": pool, "FULL": tmp_path / "full", "BELOW": pool / "corpus"}
    words = [places.get(str(word), word) for word in words]
    before = sorted(tmp_path.rglob("*"))
    teacher = [] if "--teacher" in words else ["--teacher", "fake_teacher:make"]
    done = bench("corpus", "make", "--pool", pool, "--out", tmp_path / "c", "--jobs", 1, *teacher, *words)
    assert done.code == 1
    assert says.replace("POOL", str(pool)) in done.err
    assert "Traceback" not in done.err
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.suffix == ".png"] == []


def test_a_corpus_without_masks_cannot_be_reranked(ready: Path, tmp_path: Path, bench: Bench) -> None:
    done = bench("corpus", "rerank", ready, "--out", tmp_path / "other")
    assert done.code == 1
    assert "was not made by `bench corpus make`" in done.err
    assert "give the number of classes" in bench("corpus", "check", ready).err
    assert bench("corpus", "check", ready, "--classes", 10).code == 0
    assert "labels must be 0..2 or 255" in bench("corpus", "check", ready, "--classes", 3).err


def test_images_without_a_group_are_reported(grouped: Path, tmp_path: Path, bench: Bench) -> None:
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(grouped / "late.png")
    made = bench(
        "corpus", "make", "--pool", grouped, "--teacher", "fake_teacher:make", "--jobs", 1, "--out", tmp_path / "c"
    )
    assert made.code == 0
    assert "the pool: 1 images are not in the list of groups" in made.err


SUBSETS = [{"groups": 1}, {"groups": 1, "seed": 3}, {"n": 3, "groups": 1}, {"n": 4, "groups": 2}, {"n": "50pct"}]


@pytest.mark.parametrize("drawn", SUBSETS)
def test_a_pool_and_its_corpus_have_the_same_subsets(
    drawn: dict[str, object], grouped: Path, tmp_path: Path, bench: Bench
) -> None:
    subset, out = Subset.model_validate(drawn), tmp_path / "corpus"
    wanted = [image.id for image in choose(read_pool(grouped).images, subset)]
    words = ("corpus", "make", "--pool", grouped, "--teacher", "fake_teacher:make", "--jobs", 1, "--out", out)
    assert bench(*words).code == 0
    assert bench("corpus", "rerank", out, "--top-k", 2, "--out", tmp_path / "two").code == 0
    for folder in (out, tmp_path / "two"):
        whole = check_corpus(folder)[0]
        assert {image.group for image in whole.images} == {"flight 0", "flight 1"}
        assert [image.id for image in choose(whole.images, subset)] == wanted
        assert [image.id for image in choose(read_corpus(folder).images, subset)] == wanted
        (folder / "manifest.json").unlink()  # as it is published: images and label maps only
        published, notes = check_corpus(folder, num_classes=10 if folder == out else 3)
        assert [image.id for image in choose(published.images, subset)] == wanted
        assert notes == []
