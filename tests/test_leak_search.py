"""Near-duplicates of test images: what is found, what is not, and what is reported."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.scenes import draw
from pretrain_sources.image_files import decode_thermal
from pretrain_sources.leak_search import (
    LEAST_DISTINCT,
    LOOKS,
    READ_AHEAD,
    LeakReport,
    LeakSearch,
    LeakSearchError,
    prepare,
    read_frames,
    side_by_side,
)

Pixels = np.ndarray
Named = list[tuple[str, Pixels]]
SIZE = (96, 128)


def scenes_of(kind: str, count: int, first: int = 0) -> Named:
    return [(f"{kind} {i}", draw(kind, i, SIZE, seed=5).thermal) for i in range(first, first + count)]


@pytest.fixture(scope="module")
def tests() -> Named:
    return scenes_of("labelled", 16)


@pytest.fixture(scope="module")
def distinct() -> Named:
    return scenes_of("unlabelled", 40)


@pytest.fixture(scope="module")
def others() -> Named:
    return scenes_of("unlabelled", 40, first=100)


@pytest.fixture(scope="module")
def prepared(tests: Named, distinct: Named) -> LeakSearch:
    return prepare(tests, distinct)


def find_leaks(
    test: Named, corpus: Named, distinct: Named | None = None, groups: dict[str, str] | None = None
) -> LeakReport:
    return prepare(test, distinct or [], groups).find(corpus)


def noise(seed: int, spread: int = 256, size: tuple[int, int] = SIZE) -> Pixels:
    return np.random.default_rng(seed).integers(100, 100 + min(spread, 156), size, dtype=np.uint8)


def pairs(leaks: LeakReport) -> set[tuple[str, str]]:
    return {(suspect.test_id, suspect.corpus_id) for suspect in leaks.suspects}


def resized(image: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def jpeg(image: Pixels) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


def noisy(image: Pixels, sigma: float) -> Pixels:
    return np.clip(image + np.random.default_rng(3).normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


CHANGES: dict[str, tuple[Callable[[Pixels], Pixels], str]] = {
    "exact": (lambda a: a, "the whole frame"),
    "left-right": (lambda a: a[:, ::-1], "flipped left-right"),
    "up-down": (lambda a: a[::-1], "flipped up-down"),
    "both ways": (lambda a: a[::-1, ::-1], "flipped left-right and up-down"),
    "cropped": (lambda a: a[12:89, 5:107], "cropped to 80% x 80%"),
    "smaller": (lambda a: resized(a, 64, 48), "the whole frame"),
    "larger": (lambda a: resized(a, 640, 480), "the whole frame"),
    "stretched": (lambda a: resized(a, 128, 128), "the whole frame"),
    "compressed": (jpeg, "the whole frame"),
    "darker": (lambda a: np.round(255 * (a / 255) ** 1.6).astype(np.uint8), "the whole frame"),
    "lighter": (lambda a: np.round(255 * (a / 255) ** 0.6).astype(np.uint8), "the whole frame"),
    "less contrast": (lambda a: a // 3 + 90, "the whole frame"),
    "inverted": (lambda a: 255 - a, "inverted"),
    "noise": (lambda a: noisy(a, 8), "the whole frame"),
    "combined": (lambda a: 255 - a[:80, 16:120][:, ::-1], "cropped to 81% x 83%, flipped left-right, inverted"),
}


@pytest.fixture(scope="module")
def planted(tests: Named) -> Named:
    """A copy of every kind, each of another test image."""
    return [(kind, change(tests[i][1])) for i, (kind, (change, _)) in enumerate(CHANGES.items())]


@pytest.fixture(scope="module")
def found(prepared: LeakSearch, others: Named, planted: Named) -> LeakReport:
    return prepared.find([*others[:20], *planted, *others[20:]])


@pytest.mark.parametrize("kind", CHANGES)
def test_a_copy_is_found_with_its_change(kind: str, found: LeakReport, tests: Named) -> None:
    test = tests[list(CHANGES).index(kind)][0]
    how = {suspect.corpus_id: suspect.how for suspect in found.suspects if suspect.test_id == test}
    assert set(how) == {kind}
    reported, expected = how[kind], CHANGES[kind][1]
    if "cropped" in expected:  # to a per cent or two
        sides = [int(word.strip("%,")) for word in reported.split() if "%" in word]
        assert sides == pytest.approx([int(word.strip("%,")) for word in expected.split() if "%" in word], abs=2)
        reported, expected = (text.split("%", 2)[2] for text in (reported, expected))
    assert reported == expected


def test_images_without_copies_are_clean(found: LeakReport, prepared: LeakSearch, others: Named, tests: Named) -> None:
    assert found.touched == tuple(sorted(name for name, _ in tests[: len(CHANGES)]))
    assert (found.test_images, found.corpus_images) == (len(tests), len(others) + len(CHANGES))
    clean = prepared.find(others)
    assert clean.touched == ()
    assert clean.notes == ()
    assert 0 < clean.expected_false_alarms <= 0.11
    assert clean.threshold == pytest.approx(0.5, abs=0.1)


def test_the_order_of_the_corpus_does_not_matter(
    found: LeakReport, prepared: LeakSearch, others: Named, planted: Named
) -> None:
    assert prepared.find([*planted[::-1], *others[::-1]]) == found


def test_more_copies_than_are_verified_still_mark_the_image(prepared: LeakSearch, tests: Named) -> None:
    copies = [(f"copy {i}", tests[3][1]) for i in range(2 * LOOKS)]
    leaks = prepared.find(copies)
    assert leaks.touched == (tests[3][0],)
    assert [suspect.corpus_id for suspect in leaks.suspects] == [f"copy {i}" for i in range(LOOKS)]
    assert prepared.find(copies[::-1]) == leaks


def test_a_larger_corpus_raises_the_threshold(prepared: LeakSearch, others: Named) -> None:
    once = prepared.find(others)
    many = prepared.find((f"{turn} {name}", image) for turn in range(30) for name, image in others[:5])
    assert many.threshold > once.threshold


@pytest.mark.parametrize("spread", [8, 40, 256])
def test_an_exact_copy_is_found_even_of_noise(spread: int, distinct: Named) -> None:
    mine = [(f"noise {i}", noise(i, spread)) for i in range(5)]
    leaks = find_leaks(mine, [*mine, *[(f"other {i}", noise(100 + i, spread)) for i in range(30)]], distinct)
    assert pairs(leaks) == {(name, name) for name, _ in mine}


def test_blank_frames_are_noted_and_not_suspected(tests: Named, distinct: Named, others: Named) -> None:
    blank = [(f"blank {level}", np.full(SIZE, level, np.uint8)) for level in (0, 100, 255)]
    faint = ("faint", np.full(SIZE, 100, np.uint8) + (noise(1) > 180))
    leaks = find_leaks([*tests, *blank], [*others, *blank, faint], distinct)
    assert leaks.suspects == ()
    assert leaks.notes == (
        "3 test images: blank, not compared: blank 0, blank 100, blank 255",
        "4 corpus images: blank, not compared: blank 0, blank 100, blank 255, faint",
    )
    assert leaks.test_images == len(tests) + 3


def test_tiny_images_are_noted_and_not_compared(prepared: LeakSearch, tests: Named, others: Named) -> None:
    tiny = [(f"tiny {i}", resized(image, 8, 6)) for i, (_, image) in enumerate(tests[:7])]
    leaks = prepared.find([*others, *tiny, ("one", np.zeros((1, 1), np.uint8))])
    assert leaks.suspects == ()
    assert leaks.notes == (
        "8 corpus images: a side below 32 pixels, not compared: tiny 0, tiny 1, tiny 2, tiny 3, tiny 4 and 3 more",
    )


def test_files_of_any_depth_are_read_and_broken_ones_counted(
    prepared: LeakSearch, tests: Named, tmp_path: Path
) -> None:
    deep = 20000 + 37 * tests[0][1].astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.save(tmp_path / "array.npy", 273 + tests[1][1].astype(np.float32) / 10)
    Image.fromarray(resized(tests[2][1], 1280, 960)).save(tmp_path / "large.jpg")
    Image.fromarray(tests[4][1]).convert("RGB").save(tmp_path / "colour.jpg")
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "large.jpg").read_bytes()[:5000])
    (tmp_path / "empty.png").touch()
    names = ["deep.png", "gone.png", "array.npy", "large.jpg", "torn.jpg", "empty.png", "colour.jpg"]
    frames = dict(read_frames((name, tmp_path / name) for name in names))
    assert list(frames) == names
    assert frames["large.jpg"].shape[0] < 960  # type: ignore[union-attr]
    leaks = prepared.find(frames.items())
    assert pairs(leaks) == {
        (tests[i][0], name) for i, name in ((0, "deep.png"), (1, "array.npy"), (2, "large.jpg"), (4, "colour.jpg"))
    }
    assert leaks.unreadable == ("gone.png", "torn.jpg", "empty.png")
    assert leaks.notes == ("3 corpus images: unreadable, not compared; copy again: gone.png, torn.jpg, empty.png",)
    assert leaks.corpus_images == 7


def test_many_files_keep_their_order(tmp_path: Path) -> None:
    Image.fromarray(noise(0)).save(tmp_path / "a.png")
    count = 2 * READ_AHEAD + 3
    assert [name for name, _ in read_frames((str(i), tmp_path / "a.png") for i in range(count))] == [
        str(i) for i in range(count)
    ]


def test_without_distinct_images_there_is_no_threshold(tests: Named, distinct: Named, others: Named) -> None:
    with pytest.raises(LeakSearchError, match="cannot set a threshold from 0 usable distinct images, need at least 30"):
        find_leaks(tests, others)
    with pytest.raises(LeakSearchError, match=r"from 29 usable.*train images of other dates"):
        find_leaks(tests, others, distinct[: LEAST_DISTINCT - 1])
    blank = [(f"b{i}", np.zeros(SIZE, np.uint8)) for i in range(40)]
    with pytest.raises(LeakSearchError, match=r"from 0 usable.*40 distinct images: blank"):
        find_leaks(tests, others, blank)


def test_test_images_of_other_groups_can_serve_as_distinct_ones(tests: Named, distinct: Named, others: Named) -> None:
    mine = [*tests, *distinct]
    groups = {name: str(i // 10) for i, (name, _) in enumerate(mine)}
    leaks = find_leaks(mine, [*others, ("copy", tests[0][1])], groups=groups)
    assert pairs(leaks) == {(tests[0][0], "copy")}
    assert leaks.notes == ("no distinct images given: the threshold comes from test images of different groups",)
    with pytest.raises(LeakSearchError, match="fewer than 30 test images can be compared"):
        find_leaks(mine, others, groups=dict.fromkeys(groups, "one"))


def test_a_distinct_image_that_is_not_distinct_is_reported(tests: Named, distinct: Named, others: Named) -> None:
    leaks = find_leaks(tests, [*others, ("copy", tests[1][1][:, ::-1])], [*distinct, ("train 7", tests[0][1])])
    assert pairs(leaks) == {(tests[1][0], "copy")}
    assert leaks.notes == (f"1 distinct image: not distinct, matches a test image: train 7 ({tests[0][0]})",)


def test_too_similar_distinct_images_give_a_warning(tests: Named, others: Named) -> None:
    same = [(f"d{i}", noisy(tests[i % 16][1], 3 + i)) for i in range(40)]
    leaks = find_leaks(tests, [*others, ("copy", tests[0][1])], same)
    assert pairs(leaks) == {(tests[0][0], "copy")}
    assert any("altered copies may be missed" in note for note in leaks.notes)


def test_invalid_input_is_refused(prepared: LeakSearch, tests: Named, distinct: Named) -> None:
    with pytest.raises(LeakSearchError, match="no test image to compare"):
        prepare([], distinct)
    with pytest.raises(LeakSearchError, match=r"no test image to compare.*1 test image: blank"):
        prepare([("b", np.zeros(SIZE, np.uint8))], distinct)
    with pytest.raises(LeakSearchError, match="cannot read test image x"):
        prepare([("x", ValueError("torn"))], distinct)
    with pytest.raises(LeakSearchError, match="duplicate id of test images"):
        prepare([tests[0], tests[0]], distinct)
    with pytest.raises(LeakSearchError, match="no corpus images"):
        prepared.find([])
    with pytest.raises(LeakSearchError, match=r"deep: an array of shape \(96, 128\) and type uint16.*decode_thermal"):
        prepared.find([("deep", np.zeros(SIZE, np.uint16))])


def test_progress_is_reported(prepared: LeakSearch, others: Named) -> None:
    progress: list[int] = []
    prepared.find(((f"{i}", others[i % 40][1]) for i in range(600)), progress.append)
    assert progress == [512, 600]


def test_side_by_side() -> None:
    sheet = side_by_side(np.zeros((64, 128), np.uint8), np.full((200, 100), 90, np.uint8))
    assert sheet.dtype == np.uint8
    assert sheet.shape == (256, 512 + 8 + 128)
    assert (sheet[:, :512] == 0).all()
    assert (sheet[:, 512:520] == 255).all()
    assert (sheet[:, 520:] == 90).all()


def test_copies_of_real_frames_are_found_among_real_frames(hit_uav: Path) -> None:
    def some(folder: str, count: int) -> list[tuple[str, Path]]:
        paths = sorted((hit_uav / "hit-uav" / folder).glob("*.jpg"))
        return [(path.stem, path) for path in paths[:: len(paths) // count][:count]]

    tests = [(name, frame) for name, frame in read_frames(some("images/test", 15)) if isinstance(frame, np.ndarray)]
    prepared = prepare(tests, read_frames(some("images/train", 60)))
    pool = list(read_frames(some("unlabelled", 60)))
    assert prepared.find(pool).suspects == ()
    changed = [(f"copy {i}", change(frame)) for i, ((_, frame), change) in enumerate(zip(tests, REAL * 3, strict=True))]
    got = pairs(prepared.find([*pool, *changed]))
    assert {(name, f"copy {i}") for i, (name, _) in enumerate(tests)} <= got


REAL: list[Callable[[Pixels], Pixels]] = [
    lambda a: a[::-1],
    lambda a: a[20:122, 10:138],
    lambda a: 255 - a,
    lambda a: noisy(a, 5),
    lambda a: jpeg(np.ascontiguousarray(a[5:120, 20:160][:, ::-1])),
]


def test_frames_are_scaled_and_rotated_before_comparison(tmp_path: Path) -> None:
    deep = np.linspace(20_000, 23_000, 64 * 96).reshape(64, 96).astype(np.uint16)
    tags = Image.Exif()
    tags[274] = 6
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray((deep // 100).astype(np.uint8)).save(tmp_path / "turned.jpg", exif=tags.tobytes())
    found = dict(read_frames((path.stem, path) for path in sorted(tmp_path.iterdir())))
    assert np.array_equal(found["deep"], decode_thermal((tmp_path / "deep.png").read_bytes()))
    assert len(np.unique(found["deep"])) > 200, "not all of it white"
    assert found["turned"].shape == (96, 64)
