"""SAM and SAM 2 through transformers: their masks are those of segment_anything and of transformers' own pipeline."""

from pathlib import Path
from typing import Any

import hub_sams
import numpy as np
import pytest
import tiny_sam
import torch
from hub_sams import frame
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor, pipeline

from pretrain_sources.recipe import SamTeacher, TransformersTeacher
from pretrain_sources.teachers import Masks, Teacher, UnsuitableError, open_teacher, transformers

pytestmark = pytest.mark.usefixtures("one_thread")
Frame = NDArray[np.uint8]
OPTIONS: dict[str, Any] = {"points_per_side": 8} | tiny_sam.THRESHOLDS
ALL = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}  # keep every mask
SOME_2 = {
    "points_per_side": 4,
    "pred_iou_thresh": 0.35,
    "stability_score_thresh": 0.1,
    "stability_score_offset": 0.1,
    "box_nms_thresh": 0.9,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See write_models. Read only."""
    return hub_sams.write_models(tmp_path_factory.mktemp("weights"))


def of_hub(weights: Path, **changes: object) -> Teacher:
    return open_teacher(TransformersTeacher.model_validate({"model": "me/sam"} | OPTIONS | changes), weights)


def of_package(weights: Path, **changes: object) -> Teacher:
    fields = {"model": tiny_sam.ENTRY, "checkpoint": str(weights / "tiny.pth")} | OPTIONS | changes
    return open_teacher(SamTeacher.model_validate(fields), weights)


def sam2(weights: Path, **changes: object) -> Teacher:
    fields = {"model": "me/sam2", "architecture": "sam2"} | SOME_2 | changes
    return open_teacher(TransformersTeacher.model_validate(fields), weights)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0


def least_iou(ours: Masks, theirs: Masks) -> float:
    return min(iou(a, b) for a, b in zip(ours.masks, theirs.masks, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prompts": "points+boxes", "box_scales": (0.25,), **ALL, "points_per_side": 3},
        {"min_mask_region_area": 400, **ALL, "points_per_side": 3},
    ],
    ids=["points", "boxes", "small regions"],
)
def test_masks_of_one_checkpoint_are_equal_through_both_packages(changes: dict[str, object], weights: Path) -> None:
    image = frame(160, tiny_sam.SIDE)
    ours, theirs = (of(weights, **changes)(image) for of in (of_hub, of_package))
    assert len(ours.masks) == len(theirs.masks) >= 5
    assert ours.prompts == theirs.prompts
    assert {len(prompt) for prompt in ours.prompts} == ({2, 4} if "prompts" in changes else {2})
    assert least_iou(ours, theirs) >= 0.999
    assert ours.predicted_iou == pytest.approx(theirs.predicted_iou, abs=1e-5)
    assert ours.stability == pytest.approx(theirs.stability, abs=1e-3)


def test_small_regions_are_removed(weights: Path) -> None:
    image, every = frame(160, tiny_sam.SIDE), {**ALL, "points_per_side": 3}
    whole, cleaned = of_hub(weights, **every)(image), of_hub(weights, **every, min_mask_region_area=400)(image)
    assert 0 < cleaned.masks.sum() < whole.masks.sum()


@pytest.mark.parametrize("changes", [{}, {"crop_n_layers": 1, "points_per_side": 3}], ids=["frame", "crops"])
def test_masks_of_resized_images_are_close(changes: dict[str, object], weights: Path) -> None:
    """The packages resize by other code, so grey levels differ by one here and there, and a score may cross a threshold."""
    image = frame(120, 200)
    ours, theirs = (of(weights, **changes)(image) for of in (of_hub, of_package))
    assert len(theirs.masks) >= 5
    for some, others in ((ours, theirs), (theirs, ours)):
        found = [max(iou(mask, other) for other in others.masks) >= 0.98 for mask in some.masks]
        assert np.mean(found) >= 0.9


def of_pipeline(folder: Path, image: Frame, **options: Any) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Masks and scores of transformers' own mask generation."""
    generate = pipeline("mask-generation", model=str(folder), image_processor=str(folder), device="cpu")
    options["points_per_crop"] = options.pop("points_per_side")
    options["crops_nms_thresh"] = options.pop("box_nms_thresh", 0.7)
    made = generate(Image.fromarray(image).convert("RGB"), points_per_batch=16, **options)
    return np.array([mask.numpy() for mask in made["masks"]]), made["scores"].numpy()


def test_masks_are_those_of_the_pipeline_of_transformers(weights: Path) -> None:
    image = frame(200, 300)
    ours = of_hub(weights)(image)
    masks, scores = of_pipeline(weights / "me" / "sam", image, **OPTIONS)
    assert len(ours.masks) == len(masks) >= 5
    assert min(map(iou, ours.masks, masks)) >= 0.99
    assert ours.predicted_iou == pytest.approx(scores, abs=1e-5)


def test_masks_of_sam_2_are_those_of_the_pipeline_on_a_square(weights: Path) -> None:
    image = frame(90, 90)
    ours, every = sam2(weights)(image), sam2(weights, **ALL)(image)
    masks, scores = of_pipeline(weights / "me" / "sam2", image, **SOME_2)
    assert 3 <= len(masks) < len(every.masks) == 4 * 4 * 3
    assert len(ours.masks) == len(masks)
    assert min(map(iou, ours.masks, masks)) >= 0.99
    assert ours.predicted_iou == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("prompts", ["points", "boxes"])
def test_sam_2_stretches_an_image_as_its_processor_does(prompts: str, weights: Path) -> None:
    """The pipeline does not: on an image that is no square it puts the points elsewhere."""
    image, folder = frame(40, 100), weights / "me" / "sam2"
    ours = sam2(weights, prompts=prompts, box_scales=(0.5,), points_per_side=3, **ALL)(image)
    assert len(ours.masks) == (27 if prompts == "points" else 9)
    processor = Sam2Processor(Sam2ImageProcessor.from_pretrained(folder), target_size=hub_sams.SIDE_2)
    model = Sam2Model.from_pretrained(folder).eval()
    for mask, quality, prompt in zip(ours.masks, ours.predicted_iou, ours.prompts, strict=True):
        asked: Any = {"input_points": [[[list(prompt)]]]} if len(prompt) == 2 else {"input_boxes": [[list(prompt)]]}
        given = processor(images=Image.fromarray(image).convert("RGB"), **asked, return_tensors="pt")
        with torch.no_grad():
            made = model(**given, multimask_output=len(prompt) == 2)
        drawn = processor.post_process_masks(made.pred_masks, given["original_sizes"])[0][0].numpy()
        best = int(np.abs(made.iou_scores[0, 0].numpy() - quality).argmin())
        assert quality == pytest.approx(float(made.iou_scores[0, 0, best]), abs=1e-5)
        assert iou(mask, drawn[best]) >= 0.99


def test_only_sam_is_too_narrow_for_a_line(weights: Path) -> None:
    with pytest.raises(UnsuitableError, match="900 x 1 pixels is too narrow for SAM"):
        of_hub(weights)(frame(1, 900))
    assert sam2(weights, **ALL)(frame(1, 900)).masks.shape == (48, 1, 900)


def test_a_sam_2_for_videos_is_one_for_images(weights: Path) -> None:
    tensors = load_file(weights / "me" / "video" / "model.safetensors")
    assert any(name.startswith("memory_") for name in tensors)
    drawn = sam2(weights, model="me/video", **ALL)(frame(40, 60))
    assert drawn.masks.shape == (48, 40, 60)


@pytest.mark.parametrize("architecture", ["sam", "sam2"])
def test_a_model_on_a_gpu_computes_in_half_precision(
    architecture: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[object] = []
    real = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda *kind: kinds.append(kind) or real("cpu", torch.bfloat16))
    model_class = transformers.CLASSES[architecture][0]
    monkeypatch.setattr(model_class, "to", lambda model, place: kinds.append(place) or model)
    settings = TransformersTeacher.model_validate({"model": f"me/{architecture}", "architecture": architecture} | ALL)
    drawn = open_teacher(settings.model_copy(update={"points_per_side": 2}), weights, "cuda")(frame(40, 60))
    assert kinds == ["cuda", ("cuda", torch.float16), ("cuda", torch.float16)]
    assert len(drawn.masks) == 12
    assert drawn.predicted_iou.dtype == np.float32
