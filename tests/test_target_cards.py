"""Targets from a card: a user's own data, and what is wrong with it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Bench
from own_target import CARD, write_card, write_mfnet, write_own
from PIL import Image

from bench import BenchError
from bench.plan.saved_plans import card_of, target_file
from bench.targets import DataError, find_target, open_pool, open_target, shipped_targets
from bench.targets.card import TargetCard, card_text
from bench.targets.draft import draft
from bench.targets.frames import decode_image, decode_mask
from pretrain_sources.config_file import FileError, read_yaml

NOWHERE = Path("nowhere")


def opened(card: Path) -> object:
    return open_target(str(card), NOWHERE)


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    return write_own(tmp_path / "yard data")


# -- reading -----------------------------------------------------------------------------------------------------------


def test_deep_images_in_a_layout_of_its_own(yard: Path) -> None:
    target = open_target(str(yard), NOWHERE)
    assert {split: len(frames) for split, frames in target.splits.items()} == {
        "train": 8,
        "val": 4,
        "test": 8,
        "far-away": 4,
    }
    assert target.further == ("far-away",)
    assert {frame.group for frame in target.splits["test"]} == {"s3", "s4"}
    assert len({frame.group for frame in target.splits["val"]}) == 1, "a sequence stays together"
    frame = target.splits["test"][0]
    stored = np.asarray(Image.open(frame.image)).astype(float)
    image = decode_image(frame.image.read_bytes(), target.coding)
    assert np.array_equal(image, np.round((stored - 20000) / 20000 * 255).astype(np.uint8))
    mask, label = np.asarray(Image.open(frame.label)), decode_mask(frame.label.read_bytes(), target.coding)
    for value, wanted in ((0, 0), (10, 1), (11, 1), (20, 2), (99, 255)):
        assert (label[mask == value] == wanted).all()
    assert target.facts[frame.id].pixels[1] == np.isin(mask, (10, 11)).sum()


def test_the_coding_is_part_of_the_content(yard: Path) -> None:
    first = open_target(str(yard), NOWHERE).content_hash
    assert open_target(str(write_card(yard.parent, range=[20000, 41000])), NOWHERE).content_hash != first
    swapped = write_card(yard.parent, values={"ground": 0, "person": [10, 20], "cart": 11})
    assert open_target(str(swapped), NOWHERE).content_hash != first
    described = write_card(yard.parent, description="other words", how_to_get="ask")
    assert open_target(str(described), NOWHERE).content_hash == first


def test_percentiles_need_no_range(yard: Path) -> None:
    card = write_card(yard.parent, range=None, percentiles=[1, 99])
    target = open_target(str(card), NOWHERE)
    image = decode_image(target.splits["test"][0].image.read_bytes(), target.coding)
    assert (image.min(), image.max()) == (0, 255)


def test_mfnets_layout(tmp_path: Path) -> None:
    write_mfnet(tmp_path)
    target = open_target("mfnet", tmp_path)
    assert [len(frames) for frames in target.splits.values()] == [12, 4, 4]
    frame = target.splits["test"][0]
    assert np.array_equal(
        decode_image(frame.image.read_bytes(), target.coding), np.asarray(Image.open(frame.image))[..., 3]
    )


def test_coloured_masks(yard: Path) -> None:
    colours = {0: (0, 0, 0), 10: (255, 0, 0), 11: (255, 0, 0), 20: (0, 0, 255), 99: (255, 255, 255)}
    expected = open_target(str(yard), NOWHERE)
    for path in (yard.parent / "gt").rglob("*.png"):
        mask = np.asarray(Image.open(path))
        painted = np.zeros((*mask.shape, 3), np.uint8)
        for value, colour in colours.items():
            painted[mask == value] = colour
        Image.fromarray(painted).save(path)
    named = {"ground": "#000000", "person": "#ff0000", "cart": "#0000FF"}
    target = open_target(str(write_card(yard.parent, values=None, colours=named, ignore=["#ffffff"])), NOWHERE)
    assert [f.pixels for f in target.facts.values()] == [f.pixels for f in expected.facts.values()]
    lacking = write_card(yard.parent, values=None, colours=named, ignore=[])
    with pytest.raises(
        DataError, match=r"colour #ffffff on \d+ px: no class\n(.*\n)*  -> add it to `colours` or `ignore`"
    ):
        opened(lacking)


def test_folders_below_folders(yard: Path) -> None:
    for split in ("training", "testing", "far"):
        for kind, start in (("ir", "cam1_"), ("gt", "")):
            for path in list((yard.parent / kind / split).iterdir()):
                name = path.name.removeprefix(start)
                there = path.parent / name[:2] / name[3:]
                there.parent.mkdir(exist_ok=True)
                path.rename(there)
    groups = {"folder": True, "note": "sequence"}
    card = write_card(yard.parent, images="ir/<split>/<path>.tif", labels="gt/<split>/<path>_mask.png", groups=groups)
    target = open_target(str(card), NOWHERE)
    assert target.splits["test"][0].id == "s3/000"
    assert {frame.group for frame in target.splits["test"]} == {"s3", "s4"}


def test_any_suffix_of_an_image(yard: Path) -> None:
    card = write_card(yard.parent, images="ir/<split>/cam1_<name>.*")
    assert open_target(str(card), NOWHERE) is not None
    shutil.copy(yard.parent / "ir/testing/cam1_s3_000.tif", yard.parent / "ir/testing/cam1_s3_000.tiff")
    with pytest.raises(DataError, match=r"cam1_s3_000.tif and cam1_s3_000.tiff: remove one"):
        opened(card)


def test_an_index_with_columns_of_its_own(yard: Path) -> None:
    rows = ["image,part,run"]
    for split in ("training", "testing"):
        rows += [f"{p.stem[5:]}.tif,{split},{p.stem[5:7]}" for p in sorted((yard.parent / "ir" / split).iterdir())]
    (yard.parent / "all.csv").write_text("\n".join(rows))
    card = write_card(
        yard.parent,
        images="ir/<split>/cam1_<name>.tif",
        folders=None,
        index={"file": "all.csv", "name": "image", "split": "part"},
        index_splits={"train": "training", "test": "testing"},
        groups={"column": "run", "note": "sequence"},
    )
    with pytest.raises(DataError, match=r"no folder .*ir/train"):
        opened(card)
    for kind in ("ir", "gt"):
        (yard.parent / kind / "training").rename(yard.parent / kind / "train")
        (yard.parent / kind / "testing").rename(yard.parent / kind / "test")
    target = open_target(str(card), NOWHERE)
    assert [len(frames) for frames in target.splits.values()] == [8, 4, 8]


def test_the_pool_beside_the_data(yard: Path) -> None:
    (yard.parent / "more").mkdir()
    shutil.copy(yard.parent / "ir/far/cam1_s5_000.tif", yard.parent / "more" / "a_001.tif")
    pool = open_pool(open_target(str(write_card(yard.parent, unlabelled="more")), NOWHERE))
    assert pool is not None
    assert len(pool.images) == 1


# -- cards -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_targets())
def test_a_card_survives_being_written_for_others(name: str, tmp_path: Path) -> None:
    card = shipped_targets()[name]
    (tmp_path / "a.yaml").write_text(card_text(card))
    assert read_yaml(tmp_path / "a.yaml", TargetCard).model_dump() == card.model_dump()


def test_a_card_for_others_does_not_say_where_the_data_are(yard: Path) -> None:
    card = find_target(str(yard))
    assert card.folder == str(yard.parent)
    assert "folder" not in yaml.safe_load(card_text(card))


def test_two_faults_of_a_card_are_named_with_their_lines(yard: Path) -> None:
    yard.write_text(yard.read_text().replace("- cart\n", "- person\n", 1).replace("ignore:", "ignored:"))
    with pytest.raises(FileError) as wrong:
        find_target(str(yard))
    said = str(wrong.value).splitlines()
    assert "line 2: classes: two classes are called 'person'" in said[0]
    assert "unknown key 'ignored': did you mean 'ignore'?" in said[1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"images": "ir/<split>/<nam>.tif"}, "needs either <name> or <path>"),
        ({"images": "ir/<split>/<name>"}, "must end in a suffix of images"),
        ({"images": "../ir/<split>/<name>.tif"}, "must stay below the target's folder"),
        ({"labels": "/gt/<split>/<name>.png"}, "must stay below the target's folder"),
        ({"labels": "gt/<name>_mask.png"}, "with folders, images and labels need <split>"),
        ({"folders": {"train": "training"}}, "there is no test split"),
        ({"folders": {"train": "a", "test": "b", "../c": "c"}}, "'../c' is no name of a split"),
        ({"lists": {"train": "a.txt", "test": "b.txt"}}, "set one of lists, folders and index"),
        ({"folders": None}, "set one of lists, folders and index"),
        ({"values": {"ground": 0, "person": 10}}, "the class 'cart' has no value"),
        ({"values": {"ground": 0, "person": 10, "cart": 10}}, "10 stands for two classes"),
        ({"values": {"ground": 0, "person": 10, "cart": 99}}, "99 stands for two classes, or for a class and ignore"),
        ({"values": {"ground": 0, "person": 10, "carts": 20}}, "'carts' is not one of the classes"),
        (
            {"values": None, "colours": {"ground": "#000000", "person": "red", "cart": "#0000ff"}},
            "'red' is not a colour",
        ),
        ({"range": [40000, 20000]}, "the first number is not below the second"),
        ({"percentiles": [1, 99]}, "set range or percentiles, not both"),
        ({"range": None, "clip": True}, "clip goes with range"),
        ({"groups": {"pattern": "(", "note": "x"}}, "is not a regular expression"),
        ({"groups": {"note": "x"}}, "set one of column, pattern and folder"),
        ({"groups": {"column": "a", "note": "x"}}, "groups.column goes with index"),
        ({"name": "My Yard"}, "name: does not match"),
        ({"classes": ["only"]}, "classes"),
    ],
)
def test_a_wrong_card_is_refused(changes: dict[str, object], why: str, yard: Path) -> None:
    with pytest.raises(FileError) as wrong:
        find_target(str(write_card(yard.parent, **changes)))
    assert why in str(wrong.value)
    assert f"{yard}, line " in str(wrong.value)


def test_the_name_of_a_shipped_target_is_taken(yard: Path) -> None:
    with pytest.raises(BenchError, match="'soda' is the name of a shipped target; choose another name"):
        find_target(str(write_card(yard.parent, name="soda")))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("sodaa", "did you mean 'soda'"),
        ("nowhere.yaml", "cannot read nowhere.yaml: No such file"),
        ("xyz", "or a card file of your own"),
    ],
)
def test_an_unknown_target_is_named(given: str, why: str) -> None:
    with pytest.raises((BenchError, FileError), match=why):
        find_target(given)


# -- files -------------------------------------------------------------------------------------------------------------


def beyond(folder: Path) -> None:
    Image.fromarray(np.full((48, 64), 65000, np.uint16)).save(folder / "ir/testing/cam1_s3_000.tif")


def one_pixel(folder: Path) -> None:
    Image.fromarray(np.full((1, 1), 30000, np.uint16)).save(folder / "ir/testing/cam1_s3_000.tif")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(folder / "gt/testing/s3_000_mask.png")


def other_value(folder: Path) -> None:
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(folder / "gt/testing/s3_000_mask.png")


def no_mask(folder: Path) -> None:
    (folder / "gt/testing/s3_000_mask.png").unlink()


def colour_image(folder: Path) -> None:
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "ir/testing/cam1_s3_000.tif")


def crossing(folder: Path) -> None:
    for kind, name in (("ir", "cam1_{}.tif"), ("gt", "{}_mask.png")):
        (folder / kind / "testing" / name.format("s3_000")).rename(folder / kind / "testing" / name.format("s1_009"))


def no_group(folder: Path) -> None:
    for kind, name in (("ir", "cam1_{}.tif"), ("gt", "{}_mask.png")):
        (folder / kind / "testing" / name.format("s3_000")).rename(folder / kind / "testing" / name.format("x"))


def one_sequence(folder: Path) -> None:
    for kind in ("ir", "gt"):
        for path in [p for p in (folder / kind / "training").iterdir() if "s0_" not in p.name]:
            path.unlink()


def no_images(folder: Path) -> None:
    for path in (folder / "ir/far").iterdir():
        path.unlink()


def no_folder(folder: Path) -> None:
    (folder / "ir/far").rename(folder / "ir/fa")


def infinite(folder: Path) -> None:
    np.save(folder / "ir/testing/x.npy", np.array([[np.inf]]))
    (folder / "ir/testing/x.npy").rename(folder / "ir/testing/cam1_s3_000.tif")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (beyond, "its values are 65000 to 65000, beyond the range 20000 to 40000\n  -> widen `range`"),
        (one_pixel, "1x1 pixels\n  -> a side needs 8 pixels at least"),
        (other_value, "label 7 on 3072 px: no class\n  -> add it to `values` or `ignore`"),
        (no_mask, "s3_000_mask.png: No such file"),
        (colour_image, "it has 3 channels\n  -> set `channel` in the target's card"),
        (crossing, "1 groups have frames in several splits (first: s1, in train and test)"),
        (no_group, "1 frames have no group: the pattern '^(s\\d)_' does not match (first: x)"),
        (one_sequence, "its 4 frames are one group (sequence), and groups stay whole; add frames of another group"),
        (no_images, "ir/far holds no file like cam1_<name>.tif"),
        (no_folder, "no folder "),
        (infinite, "values that are not finite"),
    ],
)
def test_unusable_files_are_reported_once(spoil: Callable[[Path], None], why: str, yard: Path) -> None:
    spoil(yard.parent)
    with pytest.raises(DataError) as wrong:
        opened(yard)
    assert why in str(wrong.value)
    assert str(wrong.value).count(why) == 1
    assert "Errno" not in str(wrong.value)


def test_every_problem_is_in_one_report(yard: Path) -> None:
    beyond(yard.parent)
    other = yard.parent / "gt/training/s0_000_mask.png"
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(other)
    with pytest.raises(DataError, match=r"2 of 24 frames have a problem\n.*label 7.*\n.*\n.*beyond the range") as wrong:
        opened(yard)
    assert str(other) in str(wrong.value)


def test_a_list_that_names_what_is_not_there(tmp_path: Path) -> None:
    write_mfnet(tmp_path)
    with (tmp_path / "mfnet/train.txt").open("a") as file:
        file.write("00099D\n")
    with pytest.raises(DataError, match=r"00099D.png: No such file.*\n.*copy the missing files, or remove their lines"):
        open_target("mfnet", tmp_path)


def test_groups_may_cross_where_the_card_says_so(yard: Path) -> None:
    crossing(yard.parent)
    groups = {**CARD["groups"], "may_cross": True}  # type: ignore[dict-item]
    assert opened(write_card(yard.parent, groups=groups)) is not None


def test_clipping_is_a_choice(yard: Path) -> None:
    beyond(yard.parent)
    target = open_target(str(write_card(yard.parent, clip=True)), NOWHERE)
    frame = next(frame for frame in target.splits["test"] if frame.id == "s3_000")
    assert (decode_image(frame.image.read_bytes(), target.coding) == 255).all()


# -- bench data init ---------------------------------------------------------------------------------------------------


def completed(text: str, **changes: object) -> str:
    fields = yaml.safe_load(text)
    return yaml.safe_dump({k: v for k, v in (fields | changes).items() if v is not None})


def test_a_draft_of_folders_needs_little(yard: Path) -> None:
    shutil.rmtree(yard.parent / "ir/far")
    shutil.rmtree(yard.parent / "gt/far")
    yard.unlink()
    text = draft(yard.parent)
    assert "images: ir/<split>/cam1_<name>.tif" in text
    assert "labels: gt/<split>/<name>_mask.png" in text
    assert "folders: {train: training, test: testing}" in text
    assert "values: {background: 0, class-1: 10, class-2: 11, class-3: 20, class-4: 99}" in text
    assert "range: [2" in text
    path = yard.parent / "target.yaml"
    path.write_text(completed(text, groups=CARD["groups"], label_note="masks of a test"))
    assert opened(path) is not None


def test_a_draft_of_lists(tmp_path: Path) -> None:
    write_mfnet(tmp_path)
    text = draft(tmp_path / "mfnet")
    assert "lists: {train: train.txt, val: val.txt, test: test.txt}" in text
    assert "channel: 0  # TODO: which of 4 is thermal" in text
    path = tmp_path / "mfnet" / "target.yaml"
    path.write_text(completed(text, name="my-mfnet", channel=3, label_note="masks of a test"))
    assert opened(path) is not None


def test_a_draft_of_coloured_masks_and_an_index(tmp_path: Path) -> None:
    for i in range(4):
        for kind in ("rgb", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            painted = (
                np.zeros((16, 20, 3), np.uint8)
                if kind == "masks"
                else np.random.default_rng(i).integers(0, 255, (16, 20, 3), np.uint8)
            )
            painted[: 4 + i] = (255, 0, 0) if kind == "masks" else painted[: 4 + i]
            Image.fromarray(painted).save(tmp_path / kind / f"f{i}.png")
    (tmp_path / "all.csv").write_text(
        "image,split\n" + "".join(f"f{i}.png,{'train' if i < 2 else 'test'}\n" for i in range(4))
    )
    text = draft(tmp_path)
    assert "colours: {background: '#000000', class-1: '#ff0000'}" in text
    assert "index: {file: all.csv, name: image, split: split}" in text


def test_a_draft_needs_images_and_masks(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no folder"):
        draft(tmp_path / "nothing")
    with pytest.raises(
        BenchError, match=r"needs images in one folder and label maps in another.*found: no image files"
    ):
        draft(tmp_path)


def test_a_draft_is_never_written_over(yard: Path, bench: Bench) -> None:
    assert bench("data", "init", yard.parent).code == 0
    again = bench("data", "init", yard.parent)
    assert again.code == 1
    assert "exists already; delete it to write it again" in again.err
    checked = bench("data", "check", yard.parent / "target.yaml")
    assert checked.code == 1, "a draft is not complete"
    assert "label_note: still says TODO: say who drew the labels, and how" in checked.err


# -- from the card to a board --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shipped_protocol")
def test_a_target_of_ones_own_reaches_the_board_and_verification(yard: Path, tmp_path: Path, bench: Bench) -> None:
    from submitted import card_folder

    matrix = yard.parent / "matrix.yaml"
    fields = {"target": "yard.yaml", "protocol": "test-v1", "sources": ["none"], "backbones": ["tiny"]}
    matrix.write_text(yaml.safe_dump(fields))
    folder = card_folder(tmp_path / "mine")
    assert "yard on" not in bench("data", "check", yard).out
    assert "yard" in bench("plan", "--matrix", matrix, "--source", folder).out
    ran = bench("run", "--matrix", matrix, "--source", folder, "--executor", "inline")
    assert ran.code == 0, ran.err
    table = bench("table")
    assert "yard, test-v1: people-made masks, of a test" in table.out
    assert bench("table", "--test", "far-away").code == 0
    packed = bench("submit", "pack", folder, "--out", tmp_path / "out")
    assert "no manifest of yard" in packed.out
    manifest = tmp_path / "yard.json"
    assert bench("data", "manifest", yard, "--out", manifest).code == 0
    packed = bench("submit", "pack", folder, "--out", tmp_path / "out", "--manifest", manifest)
    assert packed.code == 0, packed.out
    verified = bench("submit", "verify", tmp_path / "out" / "mine", "--manifest", manifest)
    assert verified.code == 0, verified.out + verified.err
    assert str(yard.parent) not in "".join(
        path.read_text() for path in (tmp_path / "out" / "mine").rglob("*") if path.suffix in (".yaml", ".json")
    )
    card = next((tmp_path / "out" / "mine" / "runs" / "plans").glob("target-yard-*.yaml"))
    assert "folder" not in yaml.safe_load(card.read_text())
    card.write_text(card.read_text().replace("cart", "tree"))
    assert bench("submit", "verify", tmp_path / "out" / "mine", "--manifest", manifest).code == 2


def test_a_store_keeps_a_card_for_each_content_of_one_name(yard: Path, tmp_path: Path) -> None:
    """Two data sets of one name in one store: each run is judged by the card of its own data."""
    card = read_yaml(yard, TargetCard)
    other = card.model_copy(update={"label_note": "a second cut"})
    for content, kept in (("b" * 64, card), ("a" * 64, other)):
        path = target_file(tmp_path, "yard", content)
        path.parent.mkdir(exist_ok=True)
        path.write_text(card_text(kept))
    assert card_of("yard", "b" * 64, tmp_path).label_note == card.label_note
    assert card_of("yard", "a" * 64, tmp_path).label_note == "a second cut"
    for unknown in ("c" * 64, "../" * 20):
        with pytest.raises(BenchError, match="unknown target 'yard'"):
            card_of("yard", unknown, tmp_path)
    shutil.copy(path, tmp_path / "plans" / f"target-hit-uav-{'a' * 12}.yaml")
    assert card_of("hit-uav", "a" * 64, tmp_path) == shipped_targets()["hit-uav"]
    with pytest.raises(BenchError, match="unknown target"):
        card_of("../plans/target-yard", "a" * 64, tmp_path)
