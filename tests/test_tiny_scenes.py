from pathlib import Path

import numpy as np
import pytest

from bench.targets import open_target, tiny_scenes


def test_the_same_seed_gives_the_same_bytes(scenes: Path, tmp_path: Path) -> None:
    tiny_scenes.make(tmp_path / "tiny-scenes")
    first = {p.relative_to(scenes): p.read_bytes() for p in scenes.rglob("*.*")}
    again = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.*")}
    assert first == again


def test_a_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tiny_scenes, "render", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny_scenes.make(tmp_path / "tiny-scenes")
    assert not (tmp_path / "tiny-scenes").exists()
    assert tiny_scenes.make(tmp_path / "tiny-scenes") == 90


def test_frames_hold_several_classes_and_real_contrast() -> None:
    thermal, labels = tiny_scenes.render(np.random.default_rng(0))
    assert thermal.shape == labels.shape == tiny_scenes.SIZE
    assert len(np.unique(labels)) >= 5
    assert thermal.std() > 20


def test_it_is_read_by_the_soda_reader_and_says_that_it_is_synthetic(scenes: Path) -> None:
    target = open_target("tiny-scenes", scenes)
    assert {split: len(frames) for split, frames in target.splits.items()} == {"train": 40, "val": 20, "test": 30}
    assert "synthetic" in target.spec.label_note
