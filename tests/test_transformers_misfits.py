"""Models of transformers that do not fit: transformers would warn of them, or run them, and the teacher refuses them."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import hub_sams
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrain_sources.recipe import TransformersTeacher
from pretrain_sources.teachers import Masks, TeacherError, open_teacher


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See write_models. Read only."""
    return hub_sams.write_models(tmp_path_factory.mktemp("weights"))


def draw(weights: Path, architecture: str, name: str = "changed") -> Masks:
    """All masks of a grid of 2 x 2 points."""
    every = {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1, "points_per_side": 2}
    fields = {"model": f"me/{name}", "architecture": architecture}
    return open_teacher(TransformersTeacher.model_validate(fields | every), weights)(hub_sams.frame(40, 60))


def changed(source: Path, weights: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """Copy a model to weights/me/changed, with other tensors."""
    folder = weights / "me" / "changed"
    folder.mkdir(parents=True)
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def refused(weights: Path, architecture: str = "sam") -> str:
    with pytest.raises(TeacherError) as error:
        open_teacher(TransformersTeacher(model="me/changed", architecture=architecture), weights)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def spoil(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["mask_decoder.mask_tokens.weight"]
    tensors["strange"] = torch.zeros(3)
    tensors["mask_decoder.iou_token.weight"] = torch.zeros(1, 3)
    tensors["prompt_encoder.no_mask_embed.weight"].fill_(torch.nan)


@pytest.mark.parametrize("architecture", ["sam", "sam2"])
def test_tensors_that_do_not_fit_are_refused_in_one_line(
    architecture: str, weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = changed(weights / "me" / architecture, tmp_path, spoil)
    message = refused(tmp_path, architecture)
    for part in (
        f"{folder / 'model.safetensors'} does not fit Sam",
        "1 missing (mask_decoder.mask_tokens.weight)",
        "1 unknown (strange)",
        "1 of another shape (mask_decoder.iou_token.weight)",
        "1 not finite (prompt_encoder.no_mask_embed.weight)",
        "correct `model`",
    ):
        assert part in message
    assert capfd.readouterr() == ("", ""), "transformers' own report is silent"


@pytest.mark.parametrize("architecture", ["sam", "sam2"])
@pytest.mark.parametrize("removed", ["mask_decoder.mask_tokens.weight", "vision_encoder.", ""])
def test_missing_tensors_are_refused(removed: str, architecture: str, weights: Path, tmp_path: Path) -> None:
    def remove(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(removed)]:
            del tensors[name]

    changed(weights / "me" / architecture, tmp_path, remove)
    assert f"missing ({removed}" in refused(tmp_path, architecture)


def test_a_tied_tensor_may_be_missing(weights: Path, tmp_path: Path) -> None:
    tied = "prompt_encoder.shared_embedding.positional_embedding"
    changed(weights / "me" / "sam", tmp_path, lambda tensors: tensors.pop(tied))
    one, other = draw(tmp_path, "sam"), draw(weights, "sam", "sam")
    assert np.array_equal(one.masks, other.masks)


@pytest.mark.parametrize(("named", "inside"), [("sam", "sam2"), ("sam2", "sam")])
def test_tensors_of_the_other_sam_under_its_name_are_refused(
    named: str, inside: str, weights: Path, tmp_path: Path
) -> None:
    other = load_file(weights / "me" / inside / "model.safetensors")
    changed(weights / "me" / named, tmp_path, lambda tensors: (tensors.clear(), tensors.update(other)))
    assert "missing" in refused(tmp_path, named)


def test_tensors_in_half_precision_are_computed_in_single(weights: Path, tmp_path: Path) -> None:
    changed(weights / "me" / "sam2", tmp_path, lambda t: t.update({name: one.half() for name, one in t.items()}))
    half, full = draw(tmp_path, "sam2"), draw(weights, "sam2", "sam2")
    assert half.predicted_iou == pytest.approx(full.predicted_iou, abs=0.01)
    assert (half.predicted_iou != half.predicted_iou.astype(np.float16)).any(), "finer than half precision"


def test_nothing_else_in_the_folder_is_read(weights: Path, tmp_path: Path) -> None:
    folder = changed(weights / "me" / "sam2", tmp_path, lambda tensors: None)
    for name in (
        "processor_config.json",
        "adapter_config.json",
        "generation_config.json",
        "model.safetensors.index.json",
    ):
        (folder / name).write_text("{")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    settings = json.loads((folder / "config.json").read_text())
    settings["mask_decoder_config"]["_attn_implementation"] = settings["attn_implementation"] = "owner/kernels"
    settings |= {"auto_map": {"AutoModel": "own.Model"}, "transformers_weights": "pytorch_model.bin"}
    (folder / "config.json").write_text(json.dumps(settings))
    assert len(draw(tmp_path, "sam2").masks) == 2 * 2 * 3


class Harmful:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.marker,)


def test_a_pickle_with_the_name_of_tensors_is_not_run(weights: Path, tmp_path: Path) -> None:
    folder, marker = changed(weights / "me" / "sam", tmp_path, lambda tensors: None), tmp_path / "marker"
    content = pickle.dumps({"weight": Harmful(marker)})
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors cannot be read as tensors" in refused(tmp_path)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()


@pytest.mark.parametrize("architecture", ["sam", "sam2"])
def test_another_size_of_images_is_refused(architecture: str, weights: Path, tmp_path: Path) -> None:
    path = changed(weights / "me" / architecture, tmp_path, lambda tensors: None) / "preprocessor_config.json"
    size = {"longest_edge": 32} if architecture == "sam" else {"height": hub_sams.SIDE_2, "width": 32}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": size}))
    assert "preprocessor_config.json makes images of" in refused(tmp_path, architecture)


@pytest.mark.parametrize("fields", [{"vision_config": {"hidden_size": "wide"}}, {"vision_config": 3}])
def test_a_configuration_that_transformers_cannot_use_is_refused(
    fields: dict[str, object], weights: Path, tmp_path: Path
) -> None:
    path = changed(weights / "me" / "sam", tmp_path, lambda tensors: None) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    assert "transformers cannot build a SamModel from its configuration" in refused(tmp_path)
