"""Ready-made masks as a teacher: COCO files and folders of amg.py, and what is wrong with some of them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import SIZE, Change, amg_folder, content, square, write
from pycocotools import mask as coco_mask

from pretrain_sources.corpus.mask_cache import ImageMasks, Refusal
from pretrain_sources.corpus.ready_masks import BEYOND, ReadyMasks, open_masks
from pretrain_sources.pool import read_pool
from pretrain_sources.recipe import CocoTeacher
from pretrain_sources.run_lengths import from_compressed, from_run_lengths, run_lengths
from pretrain_sources.teachers import TeacherError, identity, obstacle, ready_masks


def opened(path: Path, pool: Path, **settings: Any) -> ReadyMasks:
    made = open_masks(CocoTeacher(path=str(path), **settings), pool, pool, "cpu", read_pool(pool).images)
    assert isinstance(made, ReadyMasks)
    return made


def drawn(path: Path, pool: Path) -> dict[str, ImageMasks]:
    return {one.image.id: one for one in opened(path, pool).over(read_pool(pool).images)}


def areas(one: ImageMasks) -> list[int]:
    assert not isinstance(one.masks, Refusal), one.masks
    return one.masks.table["area_px"].to_pylist()


def test_a_coco_file_and_a_folder_of_amg_give_the_same_masks(pool: Path, tmp_path: Path) -> None:
    coco = drawn(write(tmp_path / "masks.json"), pool)
    amg = drawn(amg_folder(tmp_path / "amg"), pool)
    for name in ("frame_00", "frame_01"):
        tables = [one[name].masks.table for one in (coco, amg)]  # type: ignore[union-attr]
        assert tables[0].drop_columns("stability").equals(tables[1].drop_columns("stability"))
        assert tables[0]["predicted_iou"].to_pylist() == [0.5, 0.75]
        assert tables[0]["stability"].to_pylist() == [1, 1]
        assert tables[1]["stability"].to_pylist() == [pytest.approx(0.9)] * 2
    for refused in (coco["frame_02"].masks, amg["frame_02"].masks):
        assert isinstance(refused, Refusal)
        assert refused.kind == "no mask"


@pytest.mark.parametrize("kind", ["polygon", "list", "compressed"])
def test_every_kind_of_segmentation_is_read(kind: str, pool: Path, tmp_path: Path) -> None:
    mask = np.zeros(SIZE, bool)
    mask[3:9, 5:17] = True
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = {
        "polygon": [[5, 3, 17, 3, 17, 9, 5, 9]],
        "list": {"size": list(SIZE), "counts": run_lengths(mask).tolist()},
        "compressed": {"size": list(SIZE), "counts": rle["counts"].decode()},
    }[kind]
    path = write(
        tmp_path / "m.json", lambda made: made.update(annotations=[square(0, 1) | {"segmentation": segmentation}])
    )
    table = drawn(path, pool)["frame_00"].masks.table  # type: ignore[union-attr]
    assert (from_run_lengths(np.array(table["rle"][0].as_py()), SIZE) == mask).all()
    assert table["predicted_iou"].to_pylist() == [1.0], "there are no scores"


def test_compressed_run_lengths_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.3, 0.5, 0.99, 1.0):
        mask = rng.random((150, 211)) < share
        text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert from_compressed(text).tolist() == run_lengths(mask).tolist()


@pytest.mark.parametrize("text", ["", "P", "0P", "é", "~", "\n", "ooooooooo0", "O", "1oO"])
def test_damaged_compressed_run_lengths_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="compressed run lengths"):
        from_compressed(text)


def first(**fields: object) -> Change:
    """Change the first annotation."""
    return lambda made: made["annotations"][0].update(fields)


def image(**fields: object) -> Change:
    """Change the second image."""
    return lambda made: made["images"][1].update(fields)


def rle(counts: object, size: object = (20, 24)) -> Change:
    return first(segmentation={"size": size, "counts": counts})


BAD: list[tuple[Change, str]] = [
    (lambda made: made.pop("images"), "is not a COCO file: it must be an object with the lists"),
    (lambda made: made["annotations"].append(3), "annotation 4 is not an object"),
    (image(id=0), "two images have the id 0, 'frame_00.png' and 'frame_01.png': keep one"),
    (image(id=None), "image number 1 has no id"),
    (image(file_name=3), "image 1: file_name must be a text"),
    (image(file_name="frame_00.jpg"), "'frame_00.png' and 'frame_00.jpg' are both the image frame_00 of the pool"),
    (first(image_id=7), "annotation 0 is of image 7, which `images` does not list"),
    (first(image_id=[1]), "annotation 0 is of image"),
    (first(score=-0.1), "its score is -0.1, but must be a finite number from 0"),
    (first(score=float("nan")), "its score is nan"),
    (first(score=10**400), "its score is 1000"),
    (first(score=True), "its score is True"),
    (first(score="0.5"), "its score is '0.5'"),
    (first(stability_score=0.5), "annotation 1 has no stability_score, but others have"),
    (rle([480, 1]), "run lengths of 481 pixels for a mask of 20 x 24: encode the mask again"),
    (rle([-1, 481]), "run lengths must be whole numbers from 0"),
    (rle([0.5, 479.5]), "run lengths must be whole numbers from 0"),
    (rle("oP"), "compressed run lengths"),
    (rle("0"), "run lengths of 0 pixels for a mask of 20 x 24"),
    (rle(None), "run lengths need `size`"),
    (rle([480], 20), "run lengths need `size`"),
    (first(segmentation=[[0, 0, 3, 3]]), "a polygon must be x, y, x, y"),
    (first(segmentation=[[0, 0, 3, 3, 3, None]]), "a polygon must be x, y, x, y"),
    (first(segmentation=[[0, 0, 3, 3, 3, 1e9]]), "polygon at 1000000000.0, far outside of its image of 24 x 20"),
    (first(segmentation=[[0, 0, 3, 3, 3, float("nan")]]), "polygon at nan"),
    (first(segmentation="mask"), "segmentation must be a list of polygons, or run lengths"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_files_are_refused(change: Change, message: str, pool: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "masks.json", change)
    with pytest.raises(TeacherError) as stop:
        drawn(path, pool)
    assert message in str(stop.value)
    assert str(path) in str(stop.value)
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"images": [}', "\x80"])
def test_broken_json_is_refused(text: str, pool: Path, tmp_path: Path) -> None:
    (tmp_path / "masks.json").write_text(text, encoding="latin-1")
    with pytest.raises(TeacherError, match=r"masks.json is not valid JSON \(.*\): write it again"):
        opened(tmp_path / "masks.json", pool)


@pytest.mark.parametrize(
    ("change", "given"),
    [
        (image(height=21), "24 x 21"),
        (lambda made: made["annotations"][3].update(segmentation={"size": [9, 9], "counts": [81]}), "9 x 9"),
    ],
)
def test_masks_of_another_size_are_refused_as_that(change: Change, given: str, pool: Path, tmp_path: Path) -> None:
    masks = drawn(write(tmp_path / "masks.json", change), pool)
    refused = masks["frame_01"].masks
    assert isinstance(refused, Refusal)
    assert (refused.kind, f"masks of {given}, the image 24 x 20" in refused.why) == ("mask size", True)
    assert areas(masks["frame_00"]) == [16, 64]


def test_what_is_not_used_is_counted(pool: Path, tmp_path: Path) -> None:
    def change(made: dict[str, Any]) -> None:
        made["annotations"] += [square(0, 3, iscrowd=1), square(0, 3) | {"segmentation": []}]
        made["images"].append({"id": "x", "file_name": "elsewhere.png"})
        made["annotations"] += [square(0, 3, score=0.1) | {"image_id": "x"}]

    masks = opened(write(tmp_path / "masks.json", change), pool)
    assert masks.left_out == {"annotations of crowds": 1, "annotations without a segmentation": 1, BEYOND: 1}


@pytest.mark.parametrize("name", ["frame_00.png", "x/frame_00.jpg", "/data/x/frame_00.png", "x\\frame_00.png"])
def test_names_match_up_to_folders_and_suffix(name: str, tmp_path: Path, pool: Path) -> None:
    (pool / "x").mkdir()
    (pool / "frame_00.png").rename(pool / "x" / "frame_00.png")
    assert areas(drawn(write(tmp_path / "masks.json", names=(name,)), pool)["x/frame_00"]) == [16, 64]


def test_ambiguous_names_are_refused_with_both(tmp_path: Path, pool: Path) -> None:
    for folder in ("x", "y"):
        (pool / folder).mkdir()
    (pool / "frame_00.png").rename(pool / "x" / "frame_00.png")
    (pool / "frame_01.png").rename(pool / "y" / "frame_00.png")
    with pytest.raises(
        TeacherError, match=r"'frame_00.png' may be x/frame_00 or y/frame_00 of the pool: add the folder"
    ):
        opened(write(tmp_path / "masks.json"), pool)
    path = write(tmp_path / "masks.json", names=("x/frame_00.png", "z/frame_00.png"))
    assert set(opened(path, pool).index) == {"x/frame_00"}, "another folder is another image"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "frame_01" / "metadata.csv").unlink(), "frame_01 has no metadata.csv"),
        (lambda root: (root / "frame_01" / "1.png").unlink(), "metadata.csv, line 3: there is no 1.png"),
        (lambda root: rewrite(root, "1,64", "../frame_00/1,64"), "id must be a whole number that occurs once"),
        (lambda root: rewrite(root, "1,64", "0,64"), "id must be a whole number that occurs once, not '0'"),
        (lambda root: rewrite(root, "0.75", "nan"), "line 3: predicted_iou is nan"),
        (lambda root: rewrite(root, "0.75", "-1"), "line 3: predicted_iou is -1.0"),
        (lambda root: rewrite(root, "0.75", "high"), "line 3: predicted_iou is 'high'"),
        (lambda root: rewrite(root, "predicted_iou", "iou"), "has no column 'predicted_iou'"),
        (lambda root: (root / "frame_01" / "1.png").write_bytes(b"torn"), "cannot read the mask"),
        (lambda root: link(root / "frame_01" / "1.png"), "a symbolic link, not a regular file"),
        (lambda root: link(root / "frame_01"), "is a link, which may lead out of"),
    ],
)
def test_bad_folders_are_refused(spoil: Any, message: str, pool: Path, tmp_path: Path) -> None:
    root = amg_folder(tmp_path / "amg")
    spoil(root)
    with pytest.raises(TeacherError) as stop:
        drawn(root, pool)
    assert message in str(stop.value)


def rewrite(root: Path, old: str, new: str) -> None:
    path = root / "frame_01" / "metadata.csv"
    path.write_text(path.read_text().replace(old, new))


def link(path: Path) -> None:
    """Move a file or folder out of the way and put a link in its place."""
    path.rename(elsewhere := path.parents[2] / "elsewhere")
    os.symlink(elsewhere, path)


def test_a_folder_without_folders_and_masks_of_another_size_are_refused(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"has no folders: amg.py writes one for each image"):
        opened(pool, pool)
    refused = drawn(amg_folder(tmp_path / "amg", size=(9, 9)), pool)["frame_00"].masks
    assert isinstance(refused, Refusal)
    assert refused.kind == "mask size"


def test_the_identity_is_of_the_content(pool: Path, tmp_path: Path) -> None:
    here, there = write(tmp_path / "a.json"), write(tmp_path / "b.json")
    assert (one := identity(CocoTeacher(path=str(here)), pool)) == identity(CocoTeacher(path="b.json"), tmp_path)
    assert set(one) == {"kind", "sha256", "teacher_version"}
    there.write_text(json.dumps(content(("frame_00.png",))))
    assert identity(CocoTeacher(path=str(there)), pool) != one
    assert identity(CocoTeacher(path=str(here), oracle=True), pool) == one | {"oracle": True}
    folders = [amg_folder(tmp_path / name) for name in ("c", "d")]
    hashes = [identity(CocoTeacher(path=str(folder)), pool)["sha256"] for folder in folders]
    assert hashes[0] == hashes[1]
    (folders[1] / "frame_00" / "1.png").rename(folders[1] / "frame_00" / "2.png")
    assert identity(CocoTeacher(path=str(folders[1])), pool)["sha256"] != hashes[0]
    with pytest.raises(TeacherError, match=r"a.json has sha256 .*, expected 000000000000...: run the same command"):
        opened(here, pool, sha256="0" * 64)


def test_missing_and_large_files_are_obstacles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = CocoTeacher(path="masks.json")
    assert identity(missing, tmp_path)["sha256"] is None
    assert str(obstacle(missing, tmp_path)).endswith(": put it there, or correct `path`")
    assert "write it with `bench corpus oracle`" in str(obstacle(CocoTeacher(path="m.json", oracle=True), tmp_path))
    with open(tmp_path / "masks.json", "wb") as file:
        file.truncate(2 * 10**9)  # takes no place on the disk
    stop = obstacle(missing, tmp_path)
    assert stop is not None
    assert "has 2,000 MB, and at most 500 MB are read: use a folder of amg.py" in stop
    monkeypatch.setattr(ready_masks, "MOST_BYTES", 10**10)
    assert obstacle(missing, tmp_path) is None
