import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain_sources.card import Subset
from pretrain_sources.image_files import decode_thermal
from pretrain_sources.pool import PoolError, PoolImage, choose, evenly, look_through, read_pool


def picture(seed: int, size: tuple[int, int] = (4, 6)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pool"
    (root / "night").mkdir(parents=True)
    for i in range(5):
        picture(i).save(root / f"day_{i:03d}.png")
        picture(100 + i).save(root / "night" / f"n{i}.png")
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(b"no image either")
    return root


def test_a_pool_is_listed_with_groups_and_hashes(folder: Path) -> None:
    pool = read_pool(folder)
    assert [image.id for image in pool.images][:2] == ["day_000", "day_001"]
    assert len(pool.images) == 10
    assert {image.group for image in pool.images} == {"day_#0", "night"}
    assert pool.content_hash == read_pool(folder).content_hash
    picture(7).save(folder / "day_004.png")
    assert pool.content_hash != read_pool(folder).content_hash


def test_groups_can_be_named_in_a_file(folder: Path) -> None:
    (folder / "groups.csv").write_text("file,group\nday_000.png,one\nn1.png,two\n")
    groups = {image.id: image.group for image in read_pool(folder).images}
    assert (groups["day_000"], groups["night/n1"], groups["day_001"]) == ("one", "two", "day_#0")
    (folder / "groups.csv").write_text("name,flight\nday_000.png,one\n")
    with pytest.raises(PoolError, match=r"groups.csv has no column 'file'; it needs file,group"):
        read_pool(folder)


def test_unprintable_names_are_refused(folder: Path) -> None:
    (folder / "night" / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "day_000.png").read_bytes())
    with pytest.raises(PoolError, match="is not printable UTF-8; rename it"):
        read_pool(folder)


def test_identical_images_count_once(folder: Path) -> None:
    (folder / "night" / "copy.png").write_bytes((folder / "day_000.png").read_bytes())
    pool = read_pool(folder)
    assert (len(pool.images), pool.repeated) == (10, 1)
    assert "day_000" in {image.id for image in pool.images}


def test_hashes_of_unchanged_files_are_cached(folder: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    cache = tmp_path / "cache.json"
    first = read_pool(folder, cache=cache, report=lambda done, total: seen.append(total))
    assert seen == [10] * 10
    seen.clear()
    assert read_pool(folder, cache=cache, report=lambda done, total: seen.append(total)) == first
    assert seen == []
    path = folder / "day_000.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # of the same size
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    changed = read_pool(folder, cache=cache, report=lambda done, total: seen.append(total))
    assert seen == [1]
    assert changed.content_hash != first.content_hash
    cache.write_text("[torn")
    assert len(read_pool(folder, cache=cache).images) == 10


def test_unusable_pools_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(PoolError, match="no such folder"):
        read_pool(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoolError, match=r"no images in .*empty"):
        read_pool(tmp_path / "empty")
    picture(1).save(folder / "day_000.jpg")
    with pytest.raises(PoolError, match="1 names occur with several suffixes, first day_000"):
        read_pool(folder)


IMAGES = tuple(PoolImage(f"i{i:03d}", Path(), f"g{i // 25}", str(i)) for i in range(100))


def test_subsets_are_exact_nested_and_seeded() -> None:
    ten, thirty = (set(choose(IMAGES, Subset(n=n))) for n in ("10pct", 30))
    assert (len(ten), len(thirty)) == (10, 30)
    assert ten < thirty
    assert ten != set(choose(IMAGES, Subset(n=10, seed=1)))
    assert list(choose(IMAGES, Subset(n=30))) == sorted(thirty, key=lambda image: image.id)
    assert choose(IMAGES, None) == IMAGES
    assert len({image.group for image in ten}) > 1


def test_size_and_diversity_are_independent() -> None:
    for groups in (1, 2, 4):
        drawn = choose(IMAGES, Subset(n=20, groups=groups))
        assert len(drawn) == 20
        assert len({image.group for image in drawn}) == groups
    one, two = ({image.group for image in choose(IMAGES, Subset(groups=n))} for n in (1, 2))
    assert one < two
    assert len(choose(IMAGES, Subset(groups=2))) == 50


def test_every_drawn_group_is_in_the_subset() -> None:
    lopsided = tuple(PoolImage(f"i{i}", Path(), "small" if i < 3 else "large", str(i)) for i in range(1000))
    for n in (2, 10, 500):
        drawn = choose(lopsided, Subset(n=n, groups=2))
        assert len(drawn) == n
        assert {image.group for image in drawn} == {"small", "large"}
    assert set(choose(lopsided, Subset(n=10, groups=2))) < set(choose(lopsided, Subset(n=500, groups=2)))
    with pytest.raises(PoolError, match="1 images cannot come from 2 groups"):
        choose(lopsided, Subset(n=1, groups=2))


def test_a_part_of_a_percent_is_one_image() -> None:
    assert len(choose(IMAGES, Subset(n="0.1pct"))) == 1


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ({"n": 101}, "101 images requested, but the pool has 100"),
        ({"groups": 5}, "5 groups requested, but the pool has 4"),
        ({"n": 26, "groups": 1}, "26 images requested, but its 1 drawn groups have 25"),
    ],
)
def test_subsets_larger_than_the_pool_are_refused(subset: dict[str, int], message: str) -> None:
    with pytest.raises(PoolError, match=message):
        choose(IMAGES, Subset.model_validate(subset))


@pytest.mark.parametrize("subset", [{}, {"n": 0}, {"n": "0pct"}, {"n": "101pct"}, {"n": "ten"}, {"groups": 0}])
def test_invalid_subsets_are_refused(subset: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Subset.model_validate(subset)


def test_evenly_spaced() -> None:
    assert evenly(tuple(range(10)), 4) == (0, 3, 6, 9)
    assert evenly((1, 2), None) == evenly((1, 2), 5) == (1, 2)


def encoded(pixels: np.ndarray, suffix: str) -> bytes:
    import cv2

    done, data = cv2.imencode(suffix, pixels)
    assert done
    return bytes(data)


def array(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


RAMP = np.linspace(0, 1, 40 * 50).reshape(40, 50)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded((RAMP * 60000).astype(np.uint16), ".png"), id="16-bit png"),
        pytest.param(encoded((RAMP * 3000 + 20000).astype(np.uint16), ".png"), id="16-bit png of little contrast"),
        pytest.param(
            encoded(np.stack([(RAMP * 60000).astype(np.uint16)] * 3, 2), ".png"), id="16-bit png of three channels"
        ),
        pytest.param(encoded((RAMP * 60000).astype(np.uint16), ".tiff"), id="16-bit tiff"),
        pytest.param(encoded((RAMP * 40 + 273).astype(np.float32), ".tiff"), id="float tiff in kelvin"),
        pytest.param(encoded(np.stack([RAMP.astype(np.float32)] * 3, 2), ".tiff"), id="float tiff of three channels"),
    ],
)
def test_deep_frames_are_scaled_to_their_own_range(data: bytes) -> None:
    grey = decode_thermal(data).astype(int)
    assert grey.shape == RAMP.shape
    assert (grey.min(), grey.max()) == (0, 255)
    expected = np.clip((RAMP - 0.005) / 0.99, 0, 1) * 255
    assert np.abs(grey - expected).max() <= 1.5


def test_arrays_are_read_and_pickles_are_refused() -> None:
    assert decode_thermal(array(RAMP)).max() == 255
    grey = np.full((4, 5, 3), 7, np.uint8)
    assert (decode_thermal(array(grey)) == 7).all()
    with pytest.raises(ValueError, match="pickle"):
        decode_thermal(array(np.array([{"a": 1}], dtype=object)))


def test_eight_bits_stay_as_they_are() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert np.array_equal(decode_thermal(encoded(pixels, ".png")), pixels)
    assert np.array_equal(decode_thermal(encoded(np.stack([pixels] * 3, 2), ".png")), pixels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "."),
        (b"no image", "not a readable image|cannot identify"),
        (encoded(np.full((3, 3), np.nan, np.float32), ".tiff"), "not finite"),
        (array(np.zeros((3, 8, 9))), r"shape \(3, 8, 9\) and type float64 is not an image"),
        (array(np.zeros((3, 8, 9, 1))), "is not an image"),
        (array(np.zeros((8, 9), complex)), "is not an image"),
        (array(np.zeros((8, 9)))[:100], "."),
    ],
)
def test_undecodable_data_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_thermal(data)


def test_a_constant_deep_frame_is_black() -> None:
    assert decode_thermal(encoded(np.full((3, 3), 700, np.uint16), ".png")).max() == 0


# -- lists and folders that do not match ---------------------------------------------------------------------------------


def groups_of(folder: Path) -> dict[str, str]:
    return {image.id: image.group for image in read_pool(folder).images}


@pytest.mark.parametrize(
    "text",
    [
        "file,group\nday_000.png,one\nn1.png,two\n",
        "\ufefffile,group\r\nday_000.png,one\r\n\r\nn1.png,two\r\n",
        "file, group , note\n day_000.png , one ,x\n./night/n1.PNG,two,\n",
        "file,group\nday_000,one\nnight\\n1.png,two,\n",
    ],
)
def test_groups_are_read_as_programs_write_them(text: str, folder: Path) -> None:
    (folder / "groups.csv").write_bytes(text.encode())
    groups = groups_of(folder)
    assert (groups["day_000"], groups["night/n1"]) == ("one", "two")


def test_unmatched_lines_and_images_are_noted(folder: Path) -> None:
    (folder / "groups.csv").write_text("file,group\nday_000.png,one\nnight/n1.png,two\ngone.png,two\n")
    assert read_pool(folder).notes == (
        "1 files are not images by their suffix and are skipped (.txt) (first: notes.txt)",
        "8 images are not in the list of groups: their group comes from the number in their name (first: day_001)",
        "1 lines of groups.csv match no image of the pool (first: gone)",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,group\nday_000.png\n", "groups.csv, line 2: too few fields"),
        ("file,group\nday_000.png,\n", "groups.csv, line 2: too few fields"),
        ("file,group\nday,000.png,one\n", "line 2: too many fields; quote a name that contains a comma"),
        ("file,group\nday_000.png,one\n\nday_000.png,two\n", "line 4: day_000.png is in 'two', but above in 'one'"),
        ("file,group\nx.png,one\n", "matches no image of the pool; its first line has 'x'"),
        ("file,group\nday_000.png,one\nn1,two\n", r"'n1' in groups.csv may be evening/n1 or night/n1"),
        ("name;group\nday_000.png;one\n", r"has no column 'file'; it needs file,group"),
    ],
)
def test_an_invalid_list_of_groups_is_refused(text: str, message: str, folder: Path) -> None:
    (folder / "evening").mkdir()
    picture(200).save(folder / "evening" / "n1.png")
    (folder / "groups.csv").write_text(text)
    with pytest.raises(PoolError, match=message):
        read_pool(folder)


def test_a_name_with_a_dot_gives_its_group_to_no_other_image(folder: Path) -> None:
    picture(200).save(folder / "day_000.v2.png")
    (folder / "groups.csv").write_text("file,group\nday_000.v2,two\n")
    assert groups_of(folder)["day_000.v2"] == "two"
    assert groups_of(folder)["day_000"] == "day_#0"


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("listed", "stored"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_names_are_the_same_in_either_unicode_form(listed: str, stored: str, folder: Path) -> None:
    picture(300).save(folder / f"{stored}.png")
    (folder / "groups.csv").write_text(f"file,group\n{listed}.png,one\n", encoding="utf-8")
    assert groups_of(folder)[stored] == "one"
    picture(301).save(folder / f"{listed}.png")
    with pytest.raises(PoolError, match="1 names occur in several Unicode forms"):
        read_pool(folder)


def test_linked_folders_are_followed_once(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    for i in range(3):
        picture(300 + i).save(elsewhere / f"e{i}.png")
        picture(400 + i).save(elsewhere / "deep" / f"d{i}.png")
    (folder / "more").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(folder)
    (elsewhere / "self").symlink_to(elsewhere)
    (folder / "also").symlink_to(elsewhere / "deep")
    (folder / "again").symlink_to("night")
    pool = read_pool(folder)
    assert len(pool.images) == 16
    assert {"also/d0", "more/e0", "night/n0"} < {image.id for image in pool.images}
    assert pool.notes[0] == ("4 folders are linked more than once and count once (first: again/)")
    assert read_pool(folder) == pool


@pytest.mark.parametrize("leads_to", ["nowhere.png", "loop.png"])
@pytest.mark.parametrize("name", ["loop.png", "loop"])
def test_a_broken_link_is_refused(leads_to: str, name: str, folder: Path) -> None:
    (folder / "night" / name).symlink_to(name if leads_to == "loop.png" else leads_to)
    with pytest.raises(PoolError, match=rf"night/{name} is a broken link"):
        read_pool(folder)


def test_system_files_are_skipped_and_other_files_are_noted(folder: Path) -> None:
    for name in ("._day_000.png", ".DS_Store", "Thumbs.db", "clip.webp", "raw.mat", "night/x.heic"):
        (folder / name).write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._n1.png").write_bytes(b"x")
    os.mkfifo(folder / "pipe.png")
    pool = read_pool(folder)
    assert len(pool.images) == 10
    assert pool.notes == (
        "6 files are not images by their suffix and are skipped (.db, .heic, .mat, .png, .txt, .webp) (first: Thumbs.db)",
    )


def test_a_replaced_file_of_the_same_size_and_time_is_detected(folder: Path, tmp_path: Path) -> None:
    cache, path = tmp_path / "cache.json", folder / "day_000.png"
    first = read_pool(folder, cache=cache)
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `touch -r` and `cp -p` do
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert read_pool(folder, cache=cache).content_hash != first.content_hash


def test_look_through_notes_refusals_and_conversions(folder: Path) -> None:
    assert look_through(read_pool(folder)) == []
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(folder / "flat.png")
    (folder / "torn.png").write_bytes(b"torn")
    assert look_through(read_pool(folder)) == [
        "1 images have a single grey value (first: flat.png)",
        "1 images cannot be used and get no label map: not a readable image (first: torn.png)",
    ]
