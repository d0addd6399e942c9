import time
from pathlib import Path

import pytest
import yaml
from conftest import write_matrix

from backbones.registry import BACKBONES
from bench import BenchError
from bench.plan.matrix import load_matrix
from bench.spec import shipped
from pretrain_sources.config_file import FileError


@pytest.mark.parametrize("name", shipped("matrices"))
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
            ("fpn:vit_tiny_patch16_224",),
            "'fpn:vit_tiny_patch16_224': fpn needs a pyramid and vit_tiny_patch16_224 has features of one",
        ),
        (("none",), ("psp:resnet18",), "'psp:resnet18': unknown decoder 'psp'"),
    ],
)
def test_wrong_names_are_named(sources: tuple[str, ...], backbones: tuple[str, ...], says: str, tmp_path: Path) -> None:
    path = write_matrix(tmp_path, sources, backbones)
    with pytest.raises(BenchError) as wrong:
        load_matrix(str(path))
    assert says in str(wrong.value)
    assert str(path) in str(wrong.value)


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
