import time
from pathlib import Path

import pytest
import yaml
from conftest import write_matrix

from backbones.registry import BACKBONES
from bench import BenchError
from bench.plan.matrix import load_matrix
from bench.shipped import shipped_files
from pretrain_sources.config_file import FileError


@pytest.mark.parametrize("name", shipped_files("matrices"))
def test_every_shipped_matrix_loads(name: str) -> None:
    matrix = load_matrix(name)
    assert len(matrix.cells) == len(set(matrix.cells)) >= 4


def test_globs_keep_a_part(tmp_path: Path) -> None:
    path = str(write_matrix(tmp_path, ("none", "none/long", "imagenet"), ("tiny", "segformer-b0")))
    cells = load_matrix(path, sources=["none*"], backbones=["t*"]).cells
    assert [(cell.source, cell.backbone) for cell in cells] == [("none", "tiny"), ("none/long", "tiny")]


@pytest.mark.parametrize(
    ("sources", "backbones", "says"),
    [
        (("imagnet",), ("tiny",), "unknown source 'imagnet': did you mean 'imagenet'?"),
        (("none",), ("segformer-b9",), "unknown backbone 'segformer-b9': did you mean 'segformer-b5'?"),
        (("none", "none"), ("tiny",), "duplicate name 'none'"),
        (
            ("none",),
            ("unet:vit_tiny_patch16_224",),
            "'unet:vit_tiny_patch16_224': unet needs a pyramid and vit_tiny_patch16_224 has features of one",
        ),
        (("none",), ("psp:resnet18",), "'psp:resnet18': No module named 'psp'"),
        (
            ("none",),
            ("psp:resnet18.a1_in1k",),
            "'psp:resnet18.a1_in1k' is neither module:function nor DECODER:ENCODER; timm encoders go with fpn",
        ),
    ],
)
def test_wrong_names_are_named(sources: tuple[str, ...], backbones: tuple[str, ...], says: str, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, sources, backbones)
    with pytest.raises(BenchError) as wrong:
        load_matrix(str(path))
    assert says in str(wrong.value)
    assert str(path) in str(wrong.value)


def test_a_patch_larger_than_the_crop_is_refused_before_anything_trains(tmp_path: Path) -> None:
    path = write_matrix(tmp_path, backbones=("tiny", "upernet:vit_small_patch14_dinov2"), crop_px=[32, 12])
    with pytest.raises(BenchError) as refused:
        load_matrix(str(path))
    assert str(refused.value) == (
        f"{path}: backbone 'upernet:vit_small_patch14_dinov2': its patches have 14 x 14 px, more than the crop of 32 x 12 px; "
        "choose a protocol with larger crops"
    )
    assert len(load_matrix(str(write_matrix(tmp_path, backbones=("fpn:vit_small_patch14_dinov2",)))).cells) == 1


def test_a_space_after_the_colon_is_named(tmp_path: Path) -> None:
    path = write_matrix(tmp_path)
    path.write_text(path.read_text().replace("- tiny", "- unet: resnet18"))
    with pytest.raises(FileError, match="write unet:resnet18, without a space after the colon"):
        load_matrix(str(path))


def test_breadth_has_every_backbone() -> None:
    rows = [name for name, spec in BACKBONES.items() if not spec.for_tests]
    assert list(load_matrix("breadth").backbones) == rows


def test_train_fractions_are_checked(tmp_path: Path) -> None:
    path = write_matrix(tmp_path)
    good = path.read_text()
    path.write_text(good + "train_fracs: [0.5, 1.5]\n")
    with pytest.raises(FileError, match=r"train_fracs\.1: Input should be less than or equal to 1"):
        load_matrix(str(path))
    path.write_text(good + "train_fracs: [true]\n")
    with pytest.raises(FileError, match=r"train_fracs\.0: must be a number, not true or false"):
        load_matrix(str(path))
    path.write_text(good + "train_fracs: [0.1, 0.1]\n")
    with pytest.raises(BenchError, match=r"duplicate name '0\.1'"):
        load_matrix(str(path))


def test_an_unknown_matrix_and_a_glob_without_match(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="did you mean 'hit-uav-quick'"):
        load_matrix("hit-uav-quik")
    with pytest.raises(BenchError, match="--source 'sam\\*' matches nothing"):
        load_matrix(str(write_matrix(tmp_path)), sources=["sam*"])
    with pytest.raises(BenchError, match=r"--source 'aaa.*matches nothing"):
        load_matrix(str(write_matrix(tmp_path)), sources=["a" * 300])


def test_a_misspelt_key_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_matrix(tmp_path)
    path.write_text(path.read_text().replace("sources:", "source:"))
    with pytest.raises(FileError, match=r"line \d+: unknown key 'source': did you mean 'sources'\?"):
        load_matrix(str(path))


@pytest.mark.parametrize(
    ("sources", "replicates", "says"),
    [
        (
            [{"satir": {"top_k": list(range(1, 101)), "min_area_px": list(range(500))}}],
            3,
            "50,000 cells x 3 replicates",
        ),
        (
            [{"satir": {name: list(range(1000)) for name in ("top_k", "min_area_px", "points_per_side")}}],
            1,
            "1,000,000,000 cells x 1 replicates = 1,000,000,000 runs; the maximum is 100,000",
        ),
        (["none", *({"satir": {"top_k": list(range(i, i + 1100))}} for i in range(5))], 20, "5,501 cells x 20"),
    ],
)
def test_a_grid_that_is_too_large_is_refused_without_building_it(
    sources: list[object], replicates: int, says: str, tmp_path: Path
) -> None:
    path = write_matrix(tmp_path, replicates=replicates)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"sources": sources}))
    started = time.monotonic()
    with pytest.raises(BenchError) as wrong:
        load_matrix(str(path))
    assert says in str(wrong.value)
    assert time.monotonic() - started < 10


def test_the_number_of_replicates_is_limited(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="replicates: Input should be less than or equal to 1000, got 1000000000"):
        load_matrix(str(write_matrix(tmp_path, replicates=10**9)))


def test_a_large_grid_is_read_within_seconds(tmp_path: Path) -> None:
    path = write_matrix(tmp_path, replicates=1)
    grid = {"satir": {"top_k": list(range(1, 51)), "min_area_px": list(range(100))}}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"sources": [grid]}))
    started = time.monotonic()
    assert len(load_matrix(str(path)).cells) == 5000
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("satir" + "/binary" * 1500, "a source's name has 10505 characters"),
        ("satir/n-" + "9" * 5000, "a source's name has 5008 characters"),
        ("satir/n-" + "9" * 400, "at least 1 and at most 1,000,000,000"),
        ("none+" * 1500 + "satir", "a source's name has 7505 characters"),
        ("imagenet" + "+satir" * 60, "cannot continue another source|is a chain of more than|names"),
        ("satir" + "~shuffled" * 2, "is already a control"),
        ("satir/felzenszwalb/scales-axb", "scales"),
        ("satir/felzenszwalb/scales-", "scales"),
        ("satir/top-4 ~shuffled", "is not a valid name of a source"),
        ("satir/" + "n-10-seed-" + "1" * 100 + "~shuffled", "is not a valid name of a source"),
        ("satir/seed-1", "needs n, groups or both"),
        ("satir/points-1e9", "points_per_side"),
        ("satir/n-inf", "must be a number of images"),
        ("satir/iou-nan", "pred_iou_thresh"),
        ("satir/prompts-boxes/box-scales-0.0001", "boxes per image"),
    ],
)
def test_nonsense_names_are_refused_with_a_reason(name: str, says: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(BenchError, match=says):
        load_matrix(str(write_matrix(tmp_path, (name,))))
    assert time.monotonic() - started < 10


def write_card(folder: Path, name: str = "mine", **fields: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump({"name": name, "description": "A test's."} | fields))
    return path


def weights_for(*backbones: str) -> list[dict[str, object]]:
    return [{"backbones": list(backbones), "path": "weights.safetensors"}]


@pytest.mark.parametrize("listed", [True, False])
def test_a_card_that_fits_no_backbone_is_refused(listed: bool, tmp_path: Path) -> None:
    write_card(tmp_path / "mine", checkpoints=weights_for("fpn-resnet50", "*-efficientnet-lite1"))
    path = write_matrix(tmp_path, ("none", *(["mine/card.yaml"] if listed else [])), ("tiny", "segformer-b0"))
    with pytest.raises(BenchError) as wrong:
        load_matrix(str(path), sources=[] if listed else [str(tmp_path / "mine")])
    assert "no backbone fits 'mine': its card lists fpn-resnet50, *-efficientnet-lite1; " in str(wrong.value)
    assert f"{path} has tiny, segformer-b0; write a matrix with a shipped protocol" in str(wrong.value)


def test_a_card_that_fits_a_part_of_the_backbones_is_accepted(tmp_path: Path) -> None:
    folder = write_card(tmp_path / "mine", checkpoints=weights_for("tiny")).parent
    path = write_matrix(tmp_path, ("none",), ("tiny", "segformer-b0"))
    assert len(load_matrix(str(path), sources=[str(folder)]).cells) == 4
    with pytest.raises(
        BenchError, match="its card lists tiny; --backbone leaves segformer-b0; choose one that the card"
    ):
        load_matrix(str(path), sources=[str(folder)], backbones=["segformer*"])
    path = write_matrix(tmp_path, ("none", "mine/card.yaml"), ("tiny", "segformer-b0"))
    assert len(load_matrix(str(path), backbones=["segformer*"]).cells) == 2, "not asked for, so its cell is skipped"


def test_a_folder_in_place_of_its_card_is_explained(tmp_path: Path) -> None:
    write_card(tmp_path / "mine", start="imagenet")
    with pytest.raises(BenchError, match=r"unknown source 'mine'.*list its card as mine/card\.yaml in `sources`"):
        load_matrix(str(write_matrix(tmp_path, ("none", "mine"))))
    with pytest.raises(BenchError, match="to use your own source, list its card file in `sources`"):
        load_matrix(str(write_matrix(tmp_path, ("none", "other"))))


def test_a_card_that_is_listed_and_given_counts_once(tmp_path: Path) -> None:
    folder = write_card(tmp_path / "mine", start="imagenet").parent
    path = write_matrix(tmp_path, ("none", "mine/card.yaml"))
    for given in ([folder], [folder / "card.yaml", folder / ".." / "mine"]):
        cells = load_matrix(str(path), sources=list(map(str, given))).cells
        assert [cell.source for cell in cells] == ["none", "mine"]
    other = write_card(tmp_path / "other", start="imagenet")
    with pytest.raises(FileError, match=r"other/card\.yaml: duplicate name 'mine': .*mine/card\.yaml has it too"):
        load_matrix(str(path), sources=[str(other.parent)])


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    path = write_matrix(tmp_path, ("none", "mine/card.yaml"))
    with pytest.raises(
        BenchError, match=r"cannot read 'mine/card\.yaml' of `sources`: there is no file .*/mine/card\.yaml"
    ):
        load_matrix(str(path))
    path = write_matrix(tmp_path, ("none", "satir/felzenszwalb"))
    path.write_text(path.read_text() + "pool: thermal\n")
    with pytest.raises(BenchError, match=r"`pool` is thermal, but there is no folder .*/thermal; correct its path"):
        load_matrix(str(path))
    assert load_matrix(str(path), sources=["none"]).pool == tmp_path / "thermal", "it is not needed"
    assert load_matrix(str(path), pool=tmp_path).pool == tmp_path
    (tmp_path / "test-protocol.yaml").unlink()
    with pytest.raises(BenchError, match=r"cannot read 'test-protocol\.yaml' of `protocol`"):
        load_matrix(str(path))
