"""`bench leaks`, from a pool with planted copies to the board."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Bench
from PIL import Image, ImageOps
from submitted import Packed, card_folder

from bench.targets import open_target
from results.bundle import RUNS
from results.known_leaks import LeakFinding
from results.store import LEAKS


@pytest.fixture
def pool(scenes: Path, tmp_path: Path) -> Path:
    """Unlabelled frames with flipped copies of three test images among them."""
    folder = tmp_path / "pool"
    shutil.copytree(scenes / "scenes" / "unlabelled", folder)
    for frame in open_target("scenes", scenes).splits["test"][:3]:
        ImageOps.mirror(Image.open(frame.image)).save(folder / f"holiday-{frame.id}.png")
    return folder


def test_planted_copies_are_found_shown_and_stored(bench: Bench, scenes: Path, pool: Path, tmp_path: Path) -> None:
    result = bench(
        "leaks", "--source", "satir/felzenszwalb", "--source", "satir~shuffled", "--target", "scenes", "--pool", pool
    )
    assert result.code == 0, result.err
    test = [frame.id for frame in open_target("scenes", scenes).splits["test"][:3]]
    for source in ("satir--felzenszwalb", "satir~shuffled"):
        path = next((tmp_path / "store" / LEAKS / "scenes").glob(f"{source}-*.json"))
        finding = LeakFinding.model_validate_json(path.read_bytes())
        assert set(test) <= set(finding.touched)
        assert len(finding.touched) <= len(test) + 1, "false alarms"
        for name in test:
            assert (finding.touched[name].image, finding.touched[name].how) == (f"holiday-{name}", "flipped left-right")
    assert result.out.count("flipped left-right") >= 6
    pictures = sorted((tmp_path / "store" / "units" / LEAKS / "scenes-satir--felzenszwalb").glob("*.png"))
    assert len(pictures) >= 3
    assert Image.open(pictures[0]).size[1] == 256


def test_a_clean_pool_touches_nothing(bench: Bench) -> None:
    result = bench("leaks", "--source", "satir/felzenszwalb", "--target", "scenes")
    assert result.code == 0, result.err
    assert "0 of " in result.out
    assert "false alarms expected at most" in result.out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--source", "none", "--target", "scenes"), "'none' has no thermal images of its own"),
        (("--source", "imagenet", "--target", "scenes"), "'imagenet' has no thermal images of its own"),
        (("--source", "satir/top-0", "--target", "scenes"), "top_k"),
        (("--source", "satyr", "--target", "scenes"), "did you mean 'satir'"),
        (("--source", "satir", "--target", "sode"), "did you mean 'soda'"),
        (
            ("--source", "satir", "--target", "scenes", "--pool", "/nowhere"),
            "no such folder of unlabelled images: /nowhere",
        ),
        (("--source", "nothing.yaml", "--target", "scenes"), "cannot read nothing.yaml"),
    ],
)
def test_sources_that_cannot_be_searched(words: tuple[str, ...], why: str, bench: Bench) -> None:
    result = bench("leaks", *words)
    assert result.code == 1
    assert why in result.err


def test_the_images_of_a_checkpoint_come_from_pool_and_the_finding_is_packed(
    packed: Packed, bench: Bench, pool: Path, tmp_path: Path
) -> None:
    shutil.copytree(packed.store, tmp_path / "store", dirs_exist_ok=True)
    folder = card_folder(tmp_path / "mine")
    result = bench("leaks", "--source", folder, "--target", "scenes")
    assert result.code == 1
    assert "to search those that its checkpoints were trained on, give their folder with --pool DIR" in result.err
    result = bench("submit", "check", folder, "--target", "scenes")
    assert result.code == 0, "a checkpoint needs no images"
    assert "leaks: no image was searched for test images of scenes, because 'mine' has no" in result.out
    result = bench("submit", "check", folder, "--target", "scenes", "--pool", pool)
    assert result.code == 0, result.err
    assert "mIoU, all images" in result.out, "scores on all and on clean images of the runs that are there"
    rows = json.loads(bench("table", "--format", "json").out)
    assert {row["source"]: bool(row["touched"]) for row in rows} == {"none": False, "mine": True}
    assert bench("submit", "pack", folder, "--out", tmp_path / "out").code == 1, "no manifest of scenes ships"
    assert len(list((tmp_path / "out" / "mine" / RUNS / LEAKS / "scenes").glob("mine-*.json"))) == 1
    result = bench("submit", "verify", tmp_path / "out" / "mine", "--manifest", packed.manifest)
    assert result.code == 0, result.out
    assert "it declares that mine has seen " in result.out
