import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.targets import TARGETS, DataError, cut_val, open_target
from bench.targets.frames import Frame
from bench.targets.soda import read_list
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
        assert "both mask folders are there and hold the same labels" in target.notes[0]


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
    assert read_list(path) == ["a", "b", "c", "d", "e(1)", "f.v2"]


# -- what cannot be used ---------------------------------------------------------------------------------------------


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


def list_of_no_text(data: Path) -> None:
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
        (no_image_at_all, "not an image that can be read"),
        (missing_image, "No such file"),
        (missing_mask, "No such file"),
        (sixteen_bit_mask, "mask of mode I;16"),
        (sixteen_bit_image, "16-bit"),
        (coloured_mask, "mask of mode RGB"),
        (mask_of_another_size, "mask of 80x60, its image 160x120"),
        (label_outside, "label 33"),
        (empty_list, "train_infrared.txt lists nothing"),
        (missing_list, "test_infrared.txt cannot be read"),
        (list_of_no_text, "can't decode byte"),
        (no_mask_folder, "no mask folder"),
        (masks_that_disagree, "SegmentationClassPNG/00000.png differ"),
        (mask_missing_from_one_folder, "No such file"),
        (four_bit_mask, "grey PNG of 4 bits"),
        (list_in_utf16, "null byte"),
        (one_block, "its val split is empty"),
    ],
)
def test_what_cannot_be_used_is_reported(spoil: Callable[[Path], None], says: str, soda: Path) -> None:
    spoil(soda)
    with pytest.raises(DataError) as wrong:
        open_target("soda", soda)
    assert says in str(wrong.value)


def test_all_problems_stand_in_one_report(soda: Path) -> None:
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


def test_a_missing_folder_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder soda or SODA under .*--data or BENCH_DATA"):
        open_target("soda", tmp_path)


# -- duplicates ------------------------------------------------------------------------------------------------------


def test_a_train_image_that_is_also_in_test_leaves_train(soda: Path) -> None:
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


def test_a_val_image_that_is_also_in_test_leaves_val(hit_uav: Path, tmp_path: Path) -> None:
    root, rows = few_real_frames(hit_uav, tmp_path)
    (root / "index.csv").write_text("\n".join(rows))
    before = open_target("hit-uav", tmp_path)
    val, test = (before.splits[split][0] for split in ("val", "test"))
    val.image.write_bytes(test.image.read_bytes())
    after = open_target("hit-uav", tmp_path)
    assert [frame.id for frame in after.splits["val"]] == [frame.id for frame in before.splits["val"][1:]]
    assert "1 val images are byte-identical" in after.notes[0]


# -- identity and cache ----------------------------------------------------------------------------------------------


def test_the_content_hash_follows_every_pixel_and_no_place(soda: Path) -> None:
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
    cache.write_text(cache.read_text()[:100])  # a torn cache is no cache
    assert open_target("soda", soda, cache).content_hash == again.content_hash


# -- hit-uav ---------------------------------------------------------------------------------------------------------


def test_the_real_frames_are_split_by_date(hit_uav: Path) -> None:
    target = open_target("hit-uav", hit_uav)
    assert {split: len(frames) for split, frames in target.splits.items()} == {"train": 360, "val": 60, "test": 180}
    dates = {split: {frame.group for frame in frames} for split, frames in target.splits.items()}
    assert dates["test"] == {"20210118", "20210121"}
    assert dates["val"] == {"20210119"}
    assert not dates["train"] & (dates["val"] | dates["test"])
    pixels = np.array([target.facts[frame.id].pixels for frame in target.splits["train"]]).sum(0)
    assert pixels[0] / pixels.sum() == pytest.approx(0.965, abs=0.01)


def test_an_index_without_a_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "hit-uav").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*index\.csv"):
        open_target("hit-uav", tmp_path)
    (tmp_path / "hit-uav" / "index.csv").write_text("file,split,date\na.jpg,train,1\n")
    with pytest.raises(DataError, match="lists no frame for val, test"):
        open_target("hit-uav", tmp_path)


def few_real_frames(hit_uav: Path, folder: Path) -> tuple[Path, list[str]]:
    """(root, lines of its index.csv): a folder with two real frames of each split that a test may change."""
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
        ("a.jpg,Test,x,1,2,3,4", "line 8: unknown split 'Test'"),
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
    with pytest.raises(DataError, match=f"1 frames stand in two splits, the first {stem}"):
        open_target("hit-uav", tmp_path)


def test_every_target_says_what_its_labels_are() -> None:
    assert all(spec.label_note and spec.classes[0] == "background" for spec in TARGETS.values())
