import hashlib
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import pytest
from conftest import Bench
from filelock import FileLock
from PIL import Image

from bench.cli import cli
from pretrain_sources import corpus, making
from pretrain_sources.card import Subset
from pretrain_sources.corpus import (
    CorpusError,
    CorpusImage,
    check_corpus,
    deranged,
    random_ranks,
    read_corpus,
    read_manifest,
)
from pretrain_sources.files import Changed
from pretrain_sources.making import make_corpus, redrawn
from pretrain_sources.pool import choose, read_pool
from pretrain_sources.recipe import PythonTeacher, Recipe
from pretrain_sources.teachers.passes import Pass


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    root = tmp_path / "pool"
    root.mkdir()
    for i in range(7):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"frame_{i:02d}.png")
    return root


def teacher(**settings: bool | int | float | str | None) -> PythonTeacher:
    return PythonTeacher(entry="fake_teacher:make", version="1", settings=settings)


def make(
    pool: Path, out: Path, recipe: Recipe | None = None, kept: Path | None = None, **settings: bool | int | str
) -> None:
    asked = Pass(teacher(**settings), pool, kept or out / ".teacher").over(read_pool(pool).images)
    make_corpus(out, pool, asked, recipe or Recipe(), {"kind": "fake"}, total=7)
    if kept is None:
        shutil.rmtree(out / ".teacher")


def bytes_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_corpus_holds_labels_and_says_what_it_is(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus")
    corpus = read_corpus(tmp_path / "corpus")
    assert (len(corpus.images), corpus.num_classes) == (7, 10)
    manifest = read_manifest(tmp_path / "corpus")
    assert manifest is not None
    assert (manifest.images, manifest.masks, manifest.refused) == (7, 21, {})
    assert manifest.content_hash == corpus.content_hash
    label = np.asarray(Image.open(corpus.images[0].label))
    assert label.shape == (20, 24)
    assert np.bincount(label.ravel(), minlength=10).tolist() == list(corpus.images[0].class_px[:-1])
    assert manifest.uncovered_frac == pytest.approx((label == 0).mean())
    rows = pd.read_parquet(tmp_path / "corpus" / "masks.parquet")
    assert len(rows) == 21
    assert rows[rows["image"] == "frame_00"]["rank"].tolist() == [1, 2, 3]
    assert Image.open(tmp_path / "corpus" / "contact.png").width > 600
    check_corpus(tmp_path / "corpus")


def test_the_same_call_gives_the_same_bytes_whatever_the_processes(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "one")
    images = read_pool(pool).images
    asked = Pass(teacher(), pool, tmp_path / "kept").over(images, jobs=2)
    make_corpus(tmp_path / "two", pool, asked, Recipe(), {"kind": "fake"}, total=7)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_killed_call_goes_on_to_the_same_bytes(pool: Path, tmp_path: Path) -> None:
    calls, kept = tmp_path / "calls", tmp_path / "kept"
    make(pool, tmp_path / "whole", calls=str(tmp_path / "calls of the whole"))
    unbroken = teacher(calls=str(calls), die_after=4)
    with pytest.raises(KeyboardInterrupt):
        make_corpus(
            tmp_path / "broken",
            pool,
            Pass(unbroken, pool, kept).over(read_pool(pool).images),
            Recipe(),
            {"kind": "fake"},
            total=7,
        )
    assert read_manifest(tmp_path / "broken") is None
    make(pool, tmp_path / "broken", kept=kept, calls=str(calls))
    assert len(calls.read_text().splitlines()) == 7 + 1  # the fifth was asked, died, and was asked again
    assert bytes_of(tmp_path / "broken") == bytes_of(tmp_path / "whole")


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from bench.cli import main
import pretrain_sources.making as making
real, count = making._one, 0
def one(*args):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
making._one = one
main()
"""


def test_kill_minus_nine_leaves_nothing_that_passes_for_a_corpus(pool: Path, tmp_path: Path, bench: Bench) -> None:
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
        assert "c is not finished: give the same command that began it" in bench("corpus", *unfinished).err
    assert "was begun with other settings" in bench(*words, "--top-k", 4, "--out", tmp_path / "c").err
    again = bench(*words, "--out", tmp_path / "c")
    assert again.code == 0, again.err
    assert len(calls.read_text().splitlines()) == 7
    assert bench(*words, "--out", tmp_path / "other").code == 0
    assert bytes_of(tmp_path / "c") == bytes_of(tmp_path / "other")


def test_the_sheet_says_what_made_it(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    real = making.contact_sheet
    monkeypatch.setattr(making, "contact_sheet", lambda rows, title, n: titles.append(title) or real(rows, title, n))
    make(pool, tmp_path / "corpus", recipe=Recipe(top_k=4, rank_by="area", overlap="better_wins"))
    assert titles[0].startswith("fake: top 4 by area, better_wins; 7 images, ")


def test_what_a_killed_call_left_half_is_replaced(pool: Path, tmp_path: Path) -> None:
    for name in ("images/frame_00.png", "labels/frame_01.png"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"torn")
    make(pool, tmp_path / "corpus")
    check_corpus(tmp_path / "corpus")


def test_links_in_a_pool_are_followed(pool: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for path in pool.iterdir():
        (links / path.name).symlink_to(Path("..") / "pool" / path.name)
    make(links, tmp_path / "corpus")
    check_corpus(tmp_path / "corpus")


def test_a_torn_mask_file_is_asked_for_again(pool: Path, tmp_path: Path) -> None:
    calls, kept = tmp_path / "calls", tmp_path / "kept"
    make(pool, tmp_path / "one", kept=kept, calls=str(calls))
    torn = sorted(kept.rglob("*.parquet"))[3]
    torn.write_bytes(torn.read_bytes()[:100])
    make(pool, tmp_path / "two", kept=kept, calls=str(calls))
    assert len(calls.read_text().splitlines()) == 8
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_what_gets_no_label_is_counted_and_named(pool: Path, tmp_path: Path) -> None:
    (pool / "frame_03.png").write_bytes(b"torn")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(pool / "frame_05.png")
    make(pool, tmp_path / "corpus", recipe=Recipe(min_area_px=21))
    manifest = read_manifest(tmp_path / "corpus")
    assert manifest is not None
    assert (manifest.images, manifest.refused) == (5, {"no mask": 1, "unreadable": 1})
    rows = pd.read_parquet(tmp_path / "corpus" / "images.parquet").set_index("image")
    assert rows.loc["frame_03", "refused"] == "unreadable"
    assert "none of 3 masks has 21 pixels" in str(rows.loc["frame_05", "why"])
    assert not list((tmp_path / "corpus" / "labels").glob("frame_0[35]*"))
    assert len(read_corpus(tmp_path / "corpus").images) == 5


def test_masks_of_another_size_are_refused_not_drawn(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"not one of 7 images got a label map: 7 mask size.*masks of 25 x 21, the image 24 x 20"
    ):
        make(pool, tmp_path / "corpus", wrong_size=True)
    with pytest.raises(CorpusError, match="7 no mask"):
        make(pool, tmp_path / "other", masks=0)
    assert read_manifest(tmp_path / "corpus") is None


def test_ranking_anew_asks_no_teacher_and_equals_making_it_so(pool: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    make(pool, tmp_path / "nine", calls=str(calls))
    other = Recipe(top_k=2, overlap="better_wins", rank_by="area", uncovered="ignore")
    make_corpus(
        tmp_path / "anew", tmp_path / "nine" / "images", redrawn(tmp_path / "nine"), other, {"kind": "fake"}, total=7
    )
    assert len(calls.read_text().splitlines()) == 7
    make(pool, tmp_path / "two", recipe=other)
    assert bytes_of(tmp_path / "anew") == bytes_of(tmp_path / "two")


def test_what_was_too_small_can_come_back(pool: Path, tmp_path: Path, bench: Bench) -> None:
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(pool / "frame_05.png")
    make(pool, tmp_path / "large", recipe=Recipe(min_area_px=21))
    ranked = bench("corpus", "rerank", tmp_path / "large", "--out", tmp_path / "anew", "--min-area", 0)
    assert ranked.code == 0, ranked.err
    make(pool, tmp_path / "all")
    assert bytes_of(tmp_path / "anew") == bytes_of(tmp_path / "all")


def test_a_file_that_changes_while_it_is_used_is_found_out(pool: Path, tmp_path: Path) -> None:
    images = read_pool(pool).images
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(pool / "frame_04.png")
    with pytest.raises(Changed, match=r"frame_04.png has changed since it was listed"):
        list(Pass(teacher(), pool, tmp_path / "kept").over(images))
    with pytest.raises(Changed, match=r"frame_04.png"):
        list(Pass(teacher(), pool, tmp_path / "kept").over(images, jobs=2))


def test_a_full_disk_is_told_and_leaves_no_corpus(pool: Path, small_disk: Path, bench: Bench) -> None:
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
    assert "another call is making" in other.err


def test_the_options_are_those_of_the_recipe() -> None:
    options = {option.name: option for option in cli.commands["corpus"].commands["make"].params}  # type: ignore[attr-defined]
    for field in ("rank_by", "overlap", "uncovered"):
        assert options[field].type.choices == get_args(Recipe.model_fields[field].annotation)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a/../../b.png"])
def test_no_path_leads_out_of_a_corpus(name: str, pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus")
    table = pd.read_parquet(tmp_path / "corpus" / "images.parquet")
    table.loc[2, "file"] = name
    table.to_parquet(tmp_path / "corpus" / "images.parquet")
    with pytest.raises(CorpusError, match="leads out of the corpus"):
        read_corpus(tmp_path / "corpus")
    with pytest.raises(CorpusError, match="leads out of the corpus"):
        list(redrawn(tmp_path / "corpus"))


# -- ready-made corpora --------------------------------------------------------------------------------------------------


@pytest.fixture
def ready(pool: Path, tmp_path: Path) -> Path:
    """Images and label PNGs, as SATIR would be handed round."""
    make(pool, tmp_path / "made")
    folder = tmp_path / "ready"
    for name in ("images", "labels"):
        shutil.copytree(tmp_path / "made" / name, folder / name)
    return folder


def test_a_ready_made_corpus_is_read_file_by_file(ready: Path, tmp_path: Path) -> None:
    corpus, _ = check_corpus(ready, num_classes=10)
    made = read_corpus(tmp_path / "made")
    assert corpus.content_hash == made.content_hash
    assert [image.class_px for image in corpus.images] == [image.class_px for image in made.images]
    with pytest.raises(CorpusError, match=r"say how many classes its labels have"):
        check_corpus(ready)
    with pytest.raises(CorpusError, match=r"was not made by"):
        read_corpus(ready)
    with pytest.raises(CorpusError, match=r"there is no folder"):
        check_corpus(ready / "nowhere", num_classes=10)
    with pytest.raises(CorpusError, match=r"frame_00.png is a file, not a corpus"):
        check_corpus(ready / "images" / "frame_00.png", num_classes=10)


def test_every_fault_is_named_at_once(ready: Path) -> None:
    labels = ready / "labels"
    Image.fromarray(np.full((20, 24), 12, np.uint8)).save(labels / "frame_00.png")
    Image.fromarray(np.zeros((10, 24), np.uint8)).save(labels / "frame_01.png")
    (labels / "frame_02.png").unlink()
    (ready / "images" / "frame_03.png").write_bytes(b"torn")
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(labels / "frame_04.png")
    with pytest.raises(CorpusError) as wrong:
        check_corpus(ready, num_classes=10)
    text = str(wrong.value)
    assert "5 problems among 7 images" in text
    for part in (
        "frame_00.png (label 12 on 480 px)",
        "labels must be 0..9 or 255",
        "frame_01.png (24x10, its image 24x20)",
        "no label map for this image",
        "frame_03.png (",
        "mask of mode RGB",
    ):
        assert part in text


def test_a_corpus_that_was_changed_is_found_out(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus")
    label = tmp_path / "corpus" / "labels" / "frame_02.png"
    Image.fromarray((np.asarray(Image.open(label)) == 0).astype(np.uint8)).save(label)
    with pytest.raises(CorpusError, match=r"labels/frame_02.png\n  -> the label map is not the one that was") as wrong:
        check_corpus(tmp_path / "corpus")
    assert "1 problem among 7 images" in str(wrong.value)
    (tmp_path / "corpus" / "images" / "frame_01.png").unlink()
    with pytest.raises(CorpusError, match="images are missing"):
        check_corpus(tmp_path / "corpus")
    table = pd.read_parquet(tmp_path / "corpus" / "images.parquet")
    table.loc[2, "label_sha256"] = "0" * 64
    table.to_parquet(tmp_path / "corpus" / "images.parquet")
    with pytest.raises(CorpusError, match=r"images.parquet is not that of manifest.json"):
        read_corpus(tmp_path / "corpus")
    (tmp_path / "corpus" / "manifest.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"manifest.json cannot be read"):
        check_corpus(tmp_path / "corpus")


def test_files_that_have_not_changed_are_not_read_again(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, read = tmp_path / "cache.json", list[str]()
    real = corpus.read_label
    monkeypatch.setattr(corpus, "read_label", lambda data, name: read.append(name) or real(data, name))
    first = check_corpus(ready, num_classes=10, cache=cache)
    assert len(read) == 7
    assert check_corpus(ready, num_classes=10, cache=cache) == first
    assert len(read) == 7, "the cache must answer"
    label = ready / "labels" / "frame_00.png"
    before = label.stat()
    label.write_bytes(b"x" * before.st_size)
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size and time, as `touch -r` leaves them
    with pytest.raises(CorpusError, match="1 problem among 7"):
        check_corpus(ready, num_classes=10, cache=cache)


# -- controls --------------------------------------------------------------------------------------------------------------


def test_a_derangement_leaves_nothing_in_its_place() -> None:
    for n in (2, 3, 10, 500):
        order = deranged(n, seed=0)
        assert sorted(order) == list(range(n))
        assert (order != np.arange(n)).all()
        assert np.array_equal(order, deranged(n, seed=0))
    assert not np.array_equal(deranged(500, 0), deranged(500, 1))
    with pytest.raises(CorpusError, match="fewer than two"):
        deranged(1, 0)


def test_random_ranks_keep_everything_but_the_ranks() -> None:
    def of(sha256: str, seed: int = 0) -> list[int]:
        image = CorpusImage("i", Path(), Path(), "g", sha256, "", (9, 5, 0, 7, 1, 0))  # ranks 1, 3 and 4 occur
        return random_ranks(image, seed).tolist()

    assert of("a")[0] == 0
    assert of("a")[255] == 255
    assert of("a")[2] == 2
    assert sorted(of("a")[k] for k in (1, 3, 4)) == [1, 3, 4]
    assert of("a") == of("a")
    assert len({tuple(of(str(i))) for i in range(50)}) == 6
    assert len({tuple(of("a", seed)) for seed in range(50)}) == 6


# -- the command line ------------------------------------------------------------------------------------------------------


def test_make_rerank_check(pool: Path, tmp_path: Path, bench: Bench) -> None:
    out = tmp_path / "corpus"
    made = bench("corpus", "make", "--pool", pool, "--teacher", "fake_teacher:make", "--out", out, "--jobs", 1)
    assert made.code == 0, made.err
    assert "7 images with 21 masks, 10 classes" in made.out
    assert "images a second" in made.out
    assert (
        "it was there already"
        in bench("corpus", "make", "--pool", pool, "--teacher", "fake_teacher:make", "--out", out).out
    )
    assert not (out / ".teacher").exists()
    ranked = bench("corpus", "rerank", out, "--out", tmp_path / "two", "--top-k", 2, "--binary")
    assert "7 images with 21 masks, 2 classes" in ranked.out
    told = bench("corpus", "check", tmp_path / "two")
    assert told.code == 0
    assert "can be used; 7 images" in told.out
    assert "has 2 classes, not 3: leave --classes out" in bench("corpus", "check", tmp_path / "two", "--classes", 3).err
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
        (["--teacher", "fake_teacher:not_a_teacher"], "returned int, which is no teacher"),
        (["--teacher", "fake_teacher:breaks", "--jobs", 2], "fake_teacher:breaks failed on POOL/frame_00.png: Zero"),
        (["--teacher", "fake_teacher:breaks"], "fake_teacher.py, line "),
        (["--teacher", "fake_teacher:wants"], "fake_teacher:wants could not be opened: TypeError: wants() missing 1"),
        (["--teacher", "fake_teacher:make", "--points-per-batch", 3], "--points-per-batch is for the teacher sam"),
        (["--teacher", "felzenszwalb", "--checkpoint", "x"], "--checkpoint is for the teacher sam"),
        (["--pool", "nowhere"], "no folder nowhere with unlabelled images"),
        (["--binary", "--uncovered", "ignore"], "one class is nothing to learn"),
        (["--pool", "EMPTY"], "no image in"),
        (["--out", "FULL"], "holds something else already"),
        (["--out", "POOL"], "lies in the pool"),
        (["--out", "BELOW"], "lies in the pool"),
        (["--recipe", "satir/n-100"], "'satir/n-100' is more than a recipe"),
        (["--recipe", "satir~shuffled"], "'satir~shuffled' is more than a recipe"),
        (["--teacher", "os:getcwd"], "os:getcwd is not offered to cards"),
    ],
)
def test_bad_calls_are_told_what_to_do(
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


def test_ranking_what_holds_no_masks_is_refused(ready: Path, tmp_path: Path, bench: Bench) -> None:
    done = bench("corpus", "rerank", ready, "--out", tmp_path / "other")
    assert done.code == 1
    assert "was not made by `bench corpus make`" in done.err
    assert "say how many classes" in bench("corpus", "check", ready).err
    assert bench("corpus", "check", ready, "--classes", 10).code == 0
    assert "labels must be 0..2 or 255" in bench("corpus", "check", ready, "--classes", 3).err


# -- groups, and folders that do not match ---------------------------------------------------------------------------------


@pytest.fixture
def grouped(pool: Path) -> Path:
    """The pool with groups that no name tells: every other image is of the second flight."""
    lines = [f"{path.name},flight {i % 2}" for i, path in enumerate(sorted(pool.iterdir()))]
    (pool / "groups.csv").write_text("\n".join(["file,group", *lines]))
    return pool


SUBSETS = [{"groups": 1}, {"groups": 1, "seed": 3}, {"n": 3, "groups": 1}, {"n": 4, "groups": 2}, {"n": "50pct"}]


@pytest.mark.parametrize("drawn", SUBSETS)
def test_a_subset_is_the_same_of_a_pool_and_of_its_corpus(
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
        (folder / "manifest.json").unlink()  # as it is handed round: images and label maps alone
        found, notes = check_corpus(folder, num_classes=10 if folder == out else 3)
        assert [image.id for image in choose(found.images, subset)] == wanted
        assert notes == []


def test_groups_that_are_known_from_elsewhere_stay_with_a_corpus(pool: Path, tmp_path: Path) -> None:
    given = {f"frame_{i:02d}": f"date {i % 3}" for i in range(7)}
    images = read_pool(pool, given).images
    asked = Pass(teacher(), pool, tmp_path / "kept").over(images)
    make_corpus(tmp_path / "corpus", pool, asked, Recipe(), {"kind": "fake"}, total=7)
    assert [image.group for image in check_corpus(tmp_path / "corpus")[0].images] == list(given.values())


def test_a_pool_without_a_list_of_groups_gives_the_corpus_that_it_always_gave(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus")
    manifest = read_manifest(tmp_path / "corpus")
    assert manifest is not None
    assert not (tmp_path / "corpus" / "images" / "groups.csv").exists()
    assert manifest.pool_hash == read_pool(pool).content_hash
    assert {image.group for image in check_corpus(tmp_path / "corpus")[0].images} == {"frame_#0"}


def test_what_images_and_label_maps_do_not_share_is_told(ready: Path) -> None:
    labels = ready / "labels"
    shutil.copy(labels / "frame_00.png", labels / "gone.png")
    (labels / "frame_01.png").rename(labels / "frame_01.PNG")
    (ready / "images" / "readme.md").write_text("x")
    notes = check_corpus(ready, num_classes=10)[1]
    assert notes == [
        "1 files are no images by their suffix and are passed over (.md) (first: readme.md)",
        "1 files in ready/labels are matched although list and folder write their names otherwise "
        "(Unicode form, case of the suffix) (first: frame_01.PNG)",
        "1 files in ready/labels belong to no image and are not used (first: gone.png)",
    ]
    shutil.copy(labels / "frame_01.PNG", labels / "frame_01.png")
    with pytest.raises(CorpusError, match=r"labels holds frame_01.PNG and frame_01.png for one name"):
        check_corpus(ready, num_classes=10)


Form = Literal["NFC", "NFD"]


@pytest.mark.parametrize(("image", "label"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_label_maps_are_found_in_either_unicode_form(image: Form, label: Form, ready: Path) -> None:
    name = "caf\u00e9"
    (ready / "images" / "frame_02.png").rename(ready / "images" / f"{unicodedata.normalize(image, name)}.png")
    (ready / "labels" / "frame_02.png").rename(ready / "labels" / f"{unicodedata.normalize(label, name)}.png")
    found, notes = check_corpus(ready, num_classes=10)
    assert len(found.images) == 7
    assert "1 files in ready/labels are matched" in notes[0]


def test_label_maps_that_are_not_what_they_seem_are_refused(ready: Path) -> None:
    labels, tags = ready / "labels", Image.Exif()
    tags[274] = 3
    maps = [Image.open(path).copy() for path in sorted(labels.iterdir())]
    maps[0].save(labels / "frame_00.png", "JPEG")
    maps[1].save(labels / "frame_01.png", exif=tags.tobytes())
    maps[2].save(labels / "frame_02.png", "TIFF", save_all=True, append_images=[maps[3]])
    maps[4].save(ready / "images" / "frame_04.png", "TIFF", save_all=True, append_images=[maps[3]])
    with pytest.raises(CorpusError) as wrong:
        check_corpus(ready, num_classes=10)
    text = str(wrong.value)
    assert "4 problems among 7 images" in text
    for part in (
        "frame_00.png (JPEG, whose compression can change labels)",
        "frame_01.png (mask with EXIF orientation 3",
        "mogrify -auto-orient FILE",
        "frame_02.png (2 pages or frames",
        "frame_04.png (2 pages or frames",
        "the image cannot be used: save each as a file of its own",
    ):
        assert part in text


def test_what_was_converted_in_a_corpus_is_noted(ready: Path, tmp_path: Path) -> None:
    image, tags = ready / "images" / "frame_03.png", Image.Exif()
    tags[274] = 3
    Image.open(image).save(image, exif=tags.tobytes())
    Image.fromarray(np.full((20, 24), 255, np.uint8)).save(ready / "labels" / "frame_05.png")
    for _ in range(2):
        assert check_corpus(ready, num_classes=10, cache=tmp_path / "cache.json")[1] == [
            "1 images are turned or mirrored as their EXIF orientation says (first: frame_03)",
            "1 label maps hold nothing but ignore (first: frame_05)",
        ]


@pytest.mark.parametrize(("value", "says"), [(255, "nothing"), (0, "nothing but class 0")])
def test_label_maps_that_teach_nothing_are_refused(value: int, says: str, ready: Path) -> None:
    for path in (ready / "labels").iterdir():
        drawn = np.asarray(Image.open(path)) > 0
        Image.fromarray(np.where(drawn, 255, value).astype(np.uint8)).save(path)
    with pytest.raises(CorpusError, match=rf"there is nothing to learn: its label maps hold {says} besides 255, which"):
        check_corpus(ready, num_classes=10)


def test_a_made_corpus_that_teaches_nothing_says_so(pool: Path, tmp_path: Path) -> None:
    make(pool, tmp_path / "corpus", Recipe(top_k=2, uncovered="ignore"), masks=1)
    told = "there is nothing to learn: its label maps hold nothing but class 1 besides 255, which is ignored"
    assert check_corpus(tmp_path / "corpus")[1] == [told]


def test_what_a_pool_passes_over_is_told_when_a_corpus_is_made(grouped: Path, tmp_path: Path, bench: Bench) -> None:
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(grouped / "late.png")
    made = bench(
        "corpus", "make", "--pool", grouped, "--teacher", "fake_teacher:make", "--jobs", 1, "--out", tmp_path / "c"
    )
    assert made.code == 0
    assert "the pool: 1 images have no line in the list of groups" in made.err


def test_masks_that_were_drawn_on_an_image_before_it_was_turned_are_not_used(pool: Path, tmp_path: Path) -> None:
    tags, path, calls = Image.Exif(), pool / "frame_02.png", tmp_path / "calls"
    tags[274] = 3
    Image.open(path).save(path, exif=tags.tobytes())
    image, kept = read_pool(pool).images[2], tmp_path / "kept"
    old = (
        kept / image.sha256[:2] / f"{image.sha256}.parquet"
    )  # where an earlier version kept them, its image upside down
    old.parent.mkdir(parents=True)
    old.write_bytes(b"drawn on other pixels")
    for _ in range(2):
        Pass(teacher(calls=str(calls)), tmp_path, kept).ask(image)
    assert len(calls.read_text().splitlines()) == 1
    assert old.read_bytes() == b"drawn on other pixels"
