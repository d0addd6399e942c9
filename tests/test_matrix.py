from pathlib import Path

import pytest
from conftest import write_matrix

from backbones.spec import BACKBONES
from bench import BenchError
from bench.matrix import load_matrix
from bench.spec import shipped
from pretrain_sources.yamlfile import FileError


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
        (("none", "none"), ("tiny",), "'none' stands twice"),
        (
            ("none",),
            ("fpn:vit_tiny_patch16_224",),
            "'fpn:vit_tiny_patch16_224': vit_tiny_patch16_224 has features of one",
        ),
        (("none",), ("psp:resnet18",), "'psp:resnet18': no decoder 'psp'"),
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
    path.write_text(good + "train_fracs: [0.1, 0.1]\n")
    with pytest.raises(BenchError, match=r"'0\.1' stands twice"):
        load_matrix(str(path))


def test_an_unknown_matrix_and_an_idle_glob(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="did you mean 'hit-uav-quick'"):
        load_matrix("hit-uav-quik")
    with pytest.raises(BenchError, match="--source 'sam\\*' matches nothing"):
        load_matrix(str(write_matrix(tmp_path)), sources=["sam*"])


def test_a_misspelt_key_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_matrix(tmp_path)
    path.write_text(path.read_text().replace("sources:", "source:"))
    with pytest.raises(FileError, match=r"line \d+: unknown key 'source': did you mean 'sources'\?"):
        load_matrix(str(path))
