import os
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import BenchError
from bench.spec import MappedClass
from bench.targets import DataError, open_target, pool_notes, shipped_targets
from bench.targets.frames import Frame, decode_image
from bench.targets.layout import read_list
from bench.targets.manifest import shipped_manifests
from bench.targets.mapping import map_target
from bench.targets.splits import cut_val
from pretrain_sources.pool import BLOCK, block_of


def base_of(data: Path) -> Path:
    return data / "soda" / "InfraredSemanticLabel"


# -- SODA's layout, in every published form --------------------------------------------------------------------------


def as_published(data: Path) -> None:
    pass


def upper_case_folder(data: Path) -> None:
    (data / "soda").rename(data / "SODA")


def other_mask_folder(data: Path) -> None:
    (base_of(data) / "SegmentationClassOne").rename(base_of(data) / "SegmentationClassPNG")


def both_mask_folders_one_with_palettes(data: Path) -> None:
    shutil.copytree(base_of(data) / "SegmentationClassOne", base_of(data) / "SegmentationClassPNG")
    for path in (base_of(data) / "SegmentationClassPNG").iterdir():
        with Image.open(path) as image:
            palette = Image.fromarray(np.asarray(image))
        palette.putpalette([i % 256 for i in range(768)])
        palette.save(path)


def extensions_crlf_and_blank_lines(data: Path) -> None:
    for path in base_of(data).glob("*.txt"):
        stems = path.read_text().split()
        path.write_bytes(b"\xef\xbb\xbf" + "".join(f"JPEGImages/{stem}.jpg\r\n\r\n" for stem in stems).encode())


@pytest.mark.parametrize(
    "form",
    [
        as_published,
        upper_case_folder,
        other_mask_folder,
        both_mask_folders_one_with_palettes,
        extensions_crlf_and_blank_lines,
    ],
)
def test_every_published_form_is_read_alike(form: Callable[[Path], None], soda: Path) -> None:
    expected = open_target("soda", soda)
    form(soda)
    target = open_target("soda", soda)
    assert {s: [f.id for f in frames] for s, frames in target.splits.items()} == {
        s: [f.id for f in frames] for s, frames in expected.splits.items()
    }
    assert {k: f.pixels for k, f in target.facts.items()} == {k: f.pixels for k, f in expected.facts.items()}
    if form is both_mask_folders_one_with_palettes:
        assert "both mask folders exist and hold the same labels" in target.notes[0]


def test_val_is_cut_from_train_in_whole_blocks(soda: Path) -> None:
    target = open_target("soda", soda)
    assert len(target.splits["test"]) == 30
    assert 0.1 <= len(target.splits["val"]) / 60 <= 0.4
    blocks = {split: {frame.group for frame in frames} for split, frames in target.splits.items()}
    assert not blocks["train"] & blocks["val"]


def test_the_cut_is_about_a_tenth_and_depends_on_names_alone() -> None:
    frames = [Frame(f"{i:05d}", Path(), Path(), block_of(f"{i:05d}")) for i in range(1168)]
    train, val = cut_val(frames)
    assert 0.1 <= len(val) / 1168 < 0.1 + 2 * BLOCK / 1168
    assert len(train) + len(val) == 1168
    assert cut_val(list(reversed(frames)))[1] == list(reversed(val))


def test_blocks_keep_neighbours_and_copies_together() -> None:
    assert block_of("day_0041") == block_of("day_0059") != block_of("day_0060")
    assert block_of("day_0041(1)") == block_of("day_0041 (2)") == block_of("day_0041~") == block_of("day_0041")
    assert block_of("day_0041") != block_of("night_0041")


def test_list_lines(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg\r\n\r\nb\n  c.PNG \nx/y/d.jpeg\ne(1)\nf.v2\n")
    assert read_list(path) == ["a", "b", "c", "x/y/d", "e(1)", "f.v2"]


# -- unusable files --------------------------------------------------------------------------------------------------


def first(data: Path, folder: str, split: str = "train") -> Path:
    stem = (base_of(data) / f"{split}_infrared.txt").read_text().split()[0]
    return next((base_of(data) / folder).glob(f"{stem}.*"))


def truncated_jpeg(data: Path) -> None:
    path = first(data, "JPEGImages")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_image_at_all(data: Path) -> None:
    first(data, "JPEGImages").write_text("<html>not found</html>")


def missing_image(data: Path) -> None:
    first(data, "JPEGImages").unlink()


def missing_mask(data: Path) -> None:
    first(data, "SegmentationClassOne").unlink()


def sixteen_bit_mask(data: Path) -> None:
    path = first(data, "SegmentationClassOne")
    Image.fromarray(np.zeros((120, 160), dtype=np.uint16)).save(path)


def sixteen_bit_image(data: Path) -> None:
    path = first(data, "JPEGImages")
    Image.fromarray(np.zeros((120, 160), dtype=np.uint16)).save(path, format="PNG")


def coloured_mask(data: Path) -> None:
    Image.new("RGB", (160, 120)).save(first(data, "SegmentationClassOne"))


def mask_of_another_size(data: Path) -> None:
    Image.new("L", (80, 60)).save(first(data, "SegmentationClassOne"))


def label_outside(data: Path) -> None:
    Image.new("L", (160, 120), 33).save(first(data, "SegmentationClassOne"))


def empty_list(data: Path) -> None:
    (base_of(data) / "train_infrared.txt").write_text("\n\n")


def missing_list(data: Path) -> None:
    (base_of(data) / "test_infrared.txt").unlink()


def binary_list(data: Path) -> None:
    (base_of(data) / "train_infrared.txt").write_bytes(b"\xff\xfe\x00a.jpg")


def no_mask_folder(data: Path) -> None:
    (base_of(data) / "SegmentationClassOne").rename(base_of(data) / "Masks")


def masks_that_disagree(data: Path) -> None:
    shutil.copytree(base_of(data) / "SegmentationClassOne", base_of(data) / "SegmentationClassPNG")
    Image.new("L", (160, 120), 7).save(first(data, "SegmentationClassPNG"))


def mask_missing_from_one_folder(data: Path) -> None:
    masks_that_disagree(data)
    first(data, "SegmentationClassPNG").unlink()


def four_bit_mask(data: Path) -> None:
    """Pillow reads it scaled by 17: class 1 would become class 17, and pass for one of SODA's."""
    image = Image.new("L", (160, 120))
    first(data, "SegmentationClassOne").write_bytes(png_of_four_bits(image))


def png_of_four_bits(image: Image.Image) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + b"\x01" * (image.width // 2) for _ in range(image.height))
    header = struct.pack(">IIBBBBB", image.width, image.height, 4, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def list_in_utf16(data: Path) -> None:
    path = base_of(data) / "train_infrared.txt"
    path.write_bytes(path.read_text().encode("utf-16-le"))


def one_block(data: Path) -> None:
    path = base_of(data) / "train_infrared.txt"
    path.write_text("\n".join(path.read_text().split()[:10]))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncated_jpeg, "truncated"),
        (no_image_at_all, "not a readable image"),
        (missing_image, "No such file"),
        (missing_mask, "No such file"),
        (sixteen_bit_mask, "mask of mode I;16"),
        (sixteen_bit_image, "16-bit"),
        (coloured_mask, "mask of mode RGB"),
        (mask_of_another_size, "mask of 80x60, its image 160x120"),
        (label_outside, "label 33"),
        (empty_list, "train_infrared.txt is empty"),
        (missing_list, "test_infrared.txt cannot be read: No such file or directory; it lists the frames of test, one"),
        (binary_list, "can't decode byte"),
        (no_mask_folder, "no mask folder"),
        (masks_that_disagree, "SegmentationClassPNG/00000.png differ"),
        (mask_missing_from_one_folder, "No such file"),
        (four_bit_mask, "grey PNG of 4 bits"),
        (list_in_utf16, "null byte"),
        (
            one_block,
            "train is too small to cut a val split from it: its 10 frames are one block, and blocks stay whole. A bl",
        ),
        (
            one_block,
            "20 consecutive numbers at the end of file names: 0 to 19, 20 to 39 and so on. List frames of two blocks",
        ),
    ],
)
def test_unusable_files_are_reported(spoil: Callable[[Path], None], says: str, soda: Path) -> None:
    spoil(soda)
    with pytest.raises(DataError) as wrong:
        open_target("soda", soda)
    assert says in str(wrong.value)
    assert "Errno" not in str(wrong.value)


def test_one_report_lists_all_problems(soda: Path) -> None:
    for path in sorted((base_of(soda) / "SegmentationClassOne").iterdir())[:8]:
        Image.new("L", (160, 120), 99).save(path)
    for path in sorted((base_of(soda) / "JPEGImages").iterdir())[20:22]:
        path.unlink()
    with pytest.raises(DataError) as wrong:
        open_target("soda", soda)
    report = str(wrong.value)
    assert "10 of 90 frames have a problem" in report
    assert "and 3 more of this kind" in report
    assert "is this the right mask folder?" in report
    assert "copy the missing files" in report


def test_a_missing_folder_names_the_options(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder soda or SODA under .*--data or BENCH_DATA"):
        open_target("soda", tmp_path)


# -- duplicates ------------------------------------------------------------------------------------------------------


def test_train_images_that_are_also_in_test_are_dropped(soda: Path) -> None:
    first(soda, "JPEGImages").write_bytes(first(soda, "JPEGImages", "test").read_bytes())
    target = open_target("soda", soda)
    assert "00000" not in {frame.id for split in ("train", "val") for frame in target.splits[split]}
    assert len(target.splits["test"]) == 30
    assert any("1 train images are byte-identical" in note for note in target.notes)


def test_test_is_never_shortened(soda: Path) -> None:
    stems = (base_of(soda) / "test_infrared.txt").read_text().split()
    images = base_of(soda) / "JPEGImages"
    (images / f"{stems[1]}.jpg").write_bytes((images / f"{stems[0]}.jpg").read_bytes())
    target = open_target("soda", soda)
    assert len(target.splits["test"]) == 30
    assert any("1 test images are byte-identical to another test image; they stay" in note for note in target.notes)


def test_val_images_that_are_also_in_test_are_dropped(hit_uav: Path, tmp_path: Path) -> None:
    root, rows = few_real_frames(hit_uav, tmp_path)
    (root / "index.csv").write_text("\n".join(rows))
    before = open_target("hit-uav", tmp_path)
    val, test = (before.splits[split][0] for split in ("val", "test"))
    val.image.write_bytes(test.image.read_bytes())
    after = open_target("hit-uav", tmp_path)
    assert [frame.id for frame in after.splits["val"]] == [frame.id for frame in before.splits["val"][1:]]
    assert "1 val images are byte-identical" in after.notes[0]


# -- identity and cache ----------------------------------------------------------------------------------------------


def test_the_content_hash_depends_on_pixels_and_not_on_the_folder(soda: Path) -> None:
    before = open_target("soda", soda).content_hash
    soda.rename(soda.with_name("elsewhere"))
    moved = soda.with_name("elsewhere")
    assert open_target("soda", moved).content_hash == before
    path = first(moved, "SegmentationClassOne")
    label = np.asarray(Image.open(path)).copy()
    label[0, 0] = (label[0, 0] + 1) % 21
    Image.fromarray(label).save(path)
    assert open_target("soda", moved).content_hash != before


def test_unchanged_files_are_read_once(soda: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    read: list[int] = []
    first_time = open_target("soda", soda, cache, lambda done, total: read.append(total))
    assert len(read) == 90
    path = first(soda, "SegmentationClassOne")
    Image.new("L", (160, 120), 3).save(path)
    again = open_target("soda", soda, cache, lambda done, total: read.append(total))
    assert read[90:] == [1]
    assert again.content_hash != first_time.content_hash
    cache.write_bytes(cache.read_bytes()[:100])  # a damaged cache is ignored
    assert open_target("soda", soda, cache).content_hash == again.content_hash


# -- hit-uav ---------------------------------------------------------------------------------------------------------


def test_legs_of_the_real_frames_are_groups_and_share_no_date(hit_uav: Path) -> None:
    target = open_target("hit-uav", hit_uav)
    assert {split: len(frames) for split, frames in target.splits.items()} == {"train": 440, "val": 180, "test": 368}
    legs = {split: {frame.group for frame in frames} for split, frames in target.splits.items()}
    assert {split: len(named) for split, named in legs.items()} == {"train": 11, "val": 8, "test": 9}
    assert {leg.split(" / ")[0] for leg in legs["train"]} == {"20210116", "20210120"}
    assert {leg.split(" / ")[0] for leg in legs["val"]} == {"20210119", "20210123"}
    assert {leg.split(" / ")[0] for leg in legs["test"]} == {"20210118", "20210121"}
    assert "legs nest in dates" in target.spec.group_note
    pixels = np.array([target.facts[frame.id].pixels for frame in target.splits["train"]]).sum(0)
    assert pixels[0] / pixels.sum() == pytest.approx(0.965, abs=0.01)


def test_an_index_without_a_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "hit-uav").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*index\.csv: No such file or directory; index\.csv lists every"):
        open_target("hit-uav", tmp_path)
    (tmp_path / "hit-uav" / "index.csv").write_text("file,split,date,leg\na.jpg,train,1,1\n")
    with pytest.raises(DataError, match="lists no frame for val, test"):
        open_target("hit-uav", tmp_path)


def few_real_frames(hit_uav: Path, folder: Path) -> tuple[Path, list[str]]:
    """Copy two real frames of each split; return (root, lines of its index.csv)."""
    source, root = hit_uav / "hit-uav", folder / "hit-uav"
    lines = (source / "index.csv").read_text().splitlines()
    keep = [lines[0]]
    for split in ("train", "val", "test"):
        chosen = [line for line in lines if line.split(",")[1] == split][:2]
        for stem in (Path(line.split(",")[0]).stem for line in chosen):
            for part, suffix in (("images", "jpg"), ("labels", "png")):
                (root / part / split).mkdir(parents=True, exist_ok=True)
                data = (source / part / split / f"{stem}.{suffix}").read_bytes()
                (root / part / split / f"{stem}.{suffix}").write_bytes(data)
        keep += chosen
    return root, keep


def test_an_index_with_wrong_lines_is_named(hit_uav: Path, tmp_path: Path) -> None:
    root, rows = few_real_frames(hit_uav, tmp_path)
    for line, says in (
        ("a.jpg,train", "line 8: too few fields"),
        ("a.jpg,Test,x,1,2,3,4,l", "line 8: unknown split 'Test'"),
    ):
        (root / "index.csv").write_text("\n".join([*rows, line]))
        with pytest.raises(DataError, match=says):
            open_target("hit-uav", tmp_path)


def test_a_frame_in_two_splits_is_named(hit_uav: Path, tmp_path: Path) -> None:
    root, rows = few_real_frames(hit_uav, tmp_path)
    stem = Path(rows[1].split(",")[0]).stem
    other = Path(rows[3].split(",")[0]).stem
    for part, suffix in (("images", "jpg"), ("labels", "png")):  # the name of a train frame, the pixels of a val frame
        shutil.move(root / part / "val" / f"{other}.{suffix}", root / part / "val" / f"{stem}.{suffix}")
    fields = rows[3].split(",")
    rows[3] = ",".join([f"{stem}.jpg", *fields[1:]])
    (root / "index.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=rf"1 frames are in two splits \(first: {stem}\)"):
        open_target("hit-uav", tmp_path)


def test_every_target_has_a_label_note() -> None:
    assert all(
        spec.label_note and spec.classes[0] in ("background", "unlabelled") for spec in shipped_targets().values()
    )


# -- misleading files ----------------------------------------------------------------------------------------------------


def jpeg_as_mask(data: Path) -> None:
    path = first(data, "SegmentationClassOne")
    with Image.open(path) as mask:
        mask.copy().save(path, "JPEG", quality=95)


def with_exif(path: Path, orientation: int) -> None:
    tags = Image.Exif()
    tags[274] = orientation
    with Image.open(path) as image:
        form, copy = image.format, image.copy()
    copy.save(path, form, exif=tags.tobytes())


def mask_upside_down(data: Path) -> None:
    with_exif(first(data, "SegmentationClassOne"), 3)


def image_rotated_against_its_mask(data: Path) -> None:
    with_exif(first(data, "JPEGImages"), 6)


def pages_as_image(data: Path) -> None:
    path = first(data, "JPEGImages")
    image = Image.open(path)
    image.save(path, "TIFF", save_all=True, append_images=[image] * 4)


def deep_colours_as_image(data: Path) -> None:
    import cv2

    path = first(data, "JPEGImages")
    done, encoded = cv2.imencode(".png", np.full((120, 160, 3), 700, np.uint16))
    assert done
    path.write_bytes(bytes(encoded))


def every_mask(data: Path, split: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for stem in (base_of(data) / f"{split}_infrared.txt").read_text().split():
        path = base_of(data) / "SegmentationClassOne" / f"{stem}.png"
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def masks_of_test_all_ignored(data: Path) -> None:
    every_mask(data, "test", lambda mask: np.full_like(mask, 255))


def train_masks_all_ignored(data: Path) -> None:
    every_mask(data, "train", lambda mask: np.full_like(mask, 255))


def masks_of_test_0_and_255(data: Path) -> None:
    every_mask(data, "test", lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))


def all_masks_of_0_and_255(data: Path) -> None:
    for split in ("train", "test"):
        every_mask(data, split, lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (jpeg_as_mask, "00000.png: JPEG, whose compression can change labels"),
        (mask_upside_down, "00000.png: mask with EXIF orientation 3"),
        (image_rotated_against_its_mask, "(rotated by EXIF orientation 6)"),
        (
            pages_as_image,
            "00000.jpg: 5 pages or frames, of which only one would be used\n  -> save each as its own file",
        ),
        (deep_colours_as_image, "16-bit or float image (mode RGB)"),
        (label_outside, "label 33 on 19200 px"),
        (masks_of_test_all_ignored, "the labels of test hold only ignore; are these masks of 0 and 255?"),
        (train_masks_all_ignored, "the labels of train hold only ignore"),
        (masks_of_test_0_and_255, "the labels of test hold only 'background' and ignore"),
        (all_masks_of_0_and_255, "the labels of train hold only 'background' and ignore"),
    ],
)
def test_files_that_would_silently_change_labels_or_scores_are_refused(
    spoil: Callable[[Path], None], says: str, soda: Path
) -> None:
    spoil(soda)
    with pytest.raises(DataError) as wrong:
        open_target("soda", soda)
    assert says in str(wrong.value)


def test_a_rotated_image_is_corrected_and_noted(soda: Path) -> None:
    path = first(soda, "JPEGImages")
    stored = decode_image(path.read_bytes())
    with_exif(path, 3)
    turned = decode_image(path.read_bytes()).astype(int)
    assert np.abs(turned[::-1, ::-1] - stored).mean() < 8  # it was compressed once more
    notes = open_target("soda", soda).notes
    assert "1 images are rotated or mirrored by their EXIF orientation (first: 00000)" in notes


def test_conversions_are_noted_with_the_first_file(soda: Path, tmp_path: Path) -> None:
    images = sorted((base_of(soda) / "JPEGImages").iterdir())
    for path in images[:2]:
        Image.open(path).save(path, "PNG")
    Image.fromarray(np.full((120, 160), 7, np.uint8)).save(images[5])
    blank = first(soda, "SegmentationClassOne", "test")
    Image.new("L", (160, 120), 255).save(blank)
    wanted = {
        "2 images hold PNG under the name .jpg (first: 00000)",
        "1 images have a single grey value (first: 00005)",
        f"1 masks hold only ignore (first: {blank.stem})",
    }
    for cache in (None, tmp_path / "cache.json", tmp_path / "cache.json"):
        assert wanted < set(open_target("soda", soda, cache).notes)


def test_a_replaced_mask_with_the_old_mtime_is_read_again(soda: Path, tmp_path: Path) -> None:
    cache, path = tmp_path / "cache.json", first(soda, "SegmentationClassOne")
    Image.new("L", (160, 120), 3).save(path)
    before = open_target("soda", soda, cache)
    info = path.stat()
    Image.new("L", (160, 120), 4).save(path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (info.st_size, info.st_mtime_ns)
    after = open_target("soda", soda, cache)
    assert after.content_hash != before.content_hash
    assert after.facts["00000"].pixels[4] == 160 * 120


def test_a_class_map_without_a_class_to_score_is_refused(soda: Path) -> None:
    every_mask(soda, "test", lambda mask: np.minimum(mask, 1))
    target, classes = open_target("soda", soda), shipped_targets()["soda"].classes
    merged = [MappedClass(name="rest", of=("background", "person")), MappedClass(name="other", of=classes[2:])]
    with pytest.raises(BenchError, match="class_map on soda: the labels of test hold only 'rest' and ignore"):
        map_target(target, merged)


# -- lists that do not match folders -------------------------------------------------------------------------------------


def renamed(data: Path, old: str, new: str, listed: str | None = None) -> None:
    """Rename a frame on disk and in the lists."""
    base = base_of(data)
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClassOne", ".png")):
        (base / folder / f"{old}{suffix}").rename(base / folder / f"{new}{suffix}")
    for path in base.glob("*.txt"):
        path.write_text(path.read_text().replace(old, listed or new), encoding="utf-8")


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "caf\u00e9_1") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("listed", "stored"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_frames_are_found_in_either_unicode_form(listed: str, stored: str, soda: Path) -> None:
    renamed(soda, "00000", listed)
    plain = open_target("soda", soda)
    renamed(soda, listed, stored, listed)
    target = open_target("soda", soda)
    assert target.content_hash == plain.content_hash
    assert any(
        "1 files in InfraredSemanticLabel/JPEGImages match the list up to Unicode form or case of the suffix" in note
        for note in target.notes
    )
    assert "match the list" not in " ".join(plain.notes)
    shutil.copy(base_of(soda) / "JPEGImages" / f"{stored}.jpg", base_of(soda) / "JPEGImages" / f"{listed}.jpg")
    with pytest.raises(DataError, match="which are the same name: remove one"):
        open_target("soda", soda)


def test_a_name_in_two_unicode_forms_is_refused(soda: Path) -> None:
    path = base_of(soda) / "test_infrared.txt"
    path.write_text(f"{path.read_text()}\n{COMPOSED}\n{DECOMPOSED}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test_infrared.txt: 'caf.*_1' is listed in two Unicode forms"):
        open_target("soda", soda)


def test_the_case_of_a_suffix_does_not_matter(soda: Path) -> None:
    before = open_target("soda", soda)
    images = sorted((base_of(soda) / "JPEGImages").iterdir())
    for path in images[:3]:
        path.rename(path.with_suffix(".JPG"))
    mask = first(soda, "SegmentationClassOne")
    mask.rename(mask.with_suffix(".PNG"))
    after = open_target("soda", soda)
    assert after.content_hash == before.content_hash
    assert [note.split(" (")[0] for note in after.notes if "match the list" in note] == [
        f"{n} files in InfraredSemanticLabel/{folder} match the list up to Unicode form or case of the suffix"
        for n, folder in ((3, "JPEGImages"), (1, "SegmentationClassOne"))
    ]
    shutil.copy(images[0].with_suffix(".JPG"), images[0])
    with pytest.raises(DataError, match=r"JPEGImages holds 00000.JPG and 00000.jpg, which"):
        open_target("soda", soda)


def test_unlisted_files_are_noted(soda: Path) -> None:
    base = base_of(soda)
    for name in ("extra.jpg", "._00000.jpg", ".DS_Store", "Thumbs.db"):
        shutil.copy(base / "JPEGImages" / "00000.jpg", base / "JPEGImages" / name)
    assert [note for note in open_target("soda", soda).notes if "list" in note] == [
        "1 files in InfraredSemanticLabel/JPEGImages are not listed and are not used (first: extra.jpg)"
    ]


def test_a_comment_in_a_list_is_reported_as_a_missing_file(soda: Path) -> None:
    path = base_of(soda) / "train_infrared.txt"
    path.write_text(f"# frames of train\n{path.read_text()}")
    with pytest.raises(DataError, match=r"# frames of train.jpg: No such file"):
        open_target("soda", soda)


def test_an_index_in_another_csv_dialect_gives_the_same_target(hit_uav: Path, tmp_path: Path) -> None:
    root, rows = few_real_frames(hit_uav, tmp_path)
    (root / "index.csv").write_text("\n".join(rows))
    expected = open_target("hit-uav", tmp_path)
    text = "\r\n\r\n".join(row.replace(",", " , ") for row in rows)
    (root / "index.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert open_target("hit-uav", tmp_path) == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (lambda row: row.rsplit(",", 1)[0] + ",another", "listed twice, with different groups"),
        (lambda row: "a,b.jpg,train,x,1,2,3,4,l", "too many fields"),
        (lambda row: "a.jpg,train,train,1,2,3,4,", "too few fields"),
    ],
)
def test_an_inconsistent_index_is_refused(line: Callable[[str], str], says: str, hit_uav: Path, tmp_path: Path) -> None:
    root, rows = few_real_frames(hit_uav, tmp_path)
    (root / "index.csv").write_text("\n".join([*rows, line(rows[1])]))
    with pytest.raises(DataError, match=f"line 8: .*{says}"):
        open_target("hit-uav", tmp_path)


def test_groups_that_nest_are_named_with_the_larger_one(hit_uav: Path, tmp_path: Path) -> None:
    root, rows = few_real_frames(hit_uav, tmp_path)
    (root / "index.csv").write_text("\n".join(rows))
    target = open_target("hit-uav", tmp_path)
    for frame in (frame for frames in target.splits.values() for frame in frames):
        date, leg = frame.group.split(" / ")
        assert leg.startswith(f"{date}-")
    columns = rows[0].split(",")
    (root / "index.csv").write_text("\n".join([rows[0].replace(columns[3], "day"), *rows[1:]]))
    with pytest.raises(DataError, match="no column 'date'"):
        open_target("hit-uav", tmp_path)


def test_differences_between_index_and_folders_are_noted(hit_uav: Path, tmp_path: Path) -> None:
    root, rows = few_real_frames(hit_uav, tmp_path)
    stem = Path(rows[1].split(",")[0]).stem
    (root / "images" / "train" / f"{stem}.jpg").rename(root / "images" / "train" / f"{stem}.JPG")
    shutil.copy(root / "images" / "train" / f"{stem}.JPG", root / "images" / "train" / "other.jpg")
    (root / "unlabelled").mkdir()
    shutil.copy(root / "images" / "train" / f"{stem}.JPG", root / "unlabelled" / "u1.jpg")
    rest = rows[1].split(",", 2)[2]
    (root / "index.csv").write_text("\n".join([*rows, f"u1.jpg,unlabelled,{rest}", f"u2.jpg,unlabelled,{rest}"]))
    target = open_target("hit-uav", tmp_path)
    assert [note.split(" (")[0] for note in target.notes] == [
        "1 files in images/train match the list up to Unicode form or case of the suffix",
        "1 files in images/train are not listed in train and are not used",
        "1 unlabelled images of index.csv are not in unlabelled/",
    ]
    assert pool_notes(target) == ["1 unlabelled images in 1 groups"]
    shutil.copy(root / "images" / "train" / "other.jpg", root / "unlabelled" / "u3.jpg")
    assert "1 images are not in the list of groups" in " ".join(pool_notes(target))
    (root / "unlabelled" / "u1.jpg").unlink()
    (root / "unlabelled" / "u3.jpg").unlink()
    assert "the pool cannot be used: no images in" in pool_notes(target)[0]


def test_the_hash_of_the_real_frames_is_unchanged(hit_uav: Path) -> None:
    target = open_target("hit-uav", hit_uav)
    assert ("hit-uav", target.content_hash) in shipped_manifests()
    assert target.notes == ()
    assert pool_notes(target) == ["680 unlabelled images in 10 groups"]
