"""Segment Anything through the segment_anything package as a teacher."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from pretrain_sources.recipe import META_MODELS, SAM_TINY, SamTeacher
from pretrain_sources.teachers import sam_weights
from pretrain_sources.teachers.contract import Teacher, TeacherError
from pretrain_sources.teachers.mask_generator import MaskGenerator
from pretrain_sources.teachers.user_code import call_entry


def open_teacher(settings: SamTeacher, weights: Path, device: str = "cpu") -> Teacher:
    """Open the teacher with its checkpoint. weights: the user's folder. device: cpu, or cuda, where it computes in fp16.

    Raises:
        TeacherError: the checkpoint is not available, cannot be read, or does not fit the model.
    """
    model = _load(settings, sam_weights.find_or_fetch(settings, weights), device)
    return MaskGenerator(_SamPredictor(model), settings).masks


def _load(settings: SamTeacher, path: Path, device: str) -> Sam:
    model = _builder(settings.model)()
    if not isinstance(model, Sam):
        raise TeacherError(f"{settings.model} returned {type(model).__name__}, not a segment_anything.modeling.Sam")
    given, own = sam_weights.load_tensors(path), model.state_dict()
    misfits = {
        "missing": own.keys() - given.keys(),
        "unknown": given.keys() - own.keys(),
        "of another shape": {name for name in own.keys() & given.keys() if own[name].shape != given[name].shape},
        "not finite": {name for name, tensor in given.items() if not bool(tensor.isfinite().all())},
    }
    sam_weights.refuse_misfits(path, settings.model, misfits, "set the `model` of this checkpoint")
    model.load_state_dict(given)
    model.eval().to(device)
    if device == "cuda":
        for part in (model.image_encoder, model.mask_decoder):  # the prompt encoder needs full precision for positions
            part.forward = torch.autocast("cuda", torch.float16)(part.forward)
    return model


def _builder(model: str) -> Callable[[], object]:
    if model in META_MODELS:
        return sam_model_registry[model]  # type: ignore[no-any-return]
    if model == SAM_TINY:
        from pretrain_sources.teachers import sam_tiny

        return sam_tiny.build
    return partial(call_entry, model)


class _SamPredictor(SamPredictor):  # type: ignore[misc]
    """The package's predictor for the generator."""

    def __init__(self, model: Sam) -> None:
        super().__init__(model)
        self.mask_threshold: float = model.mask_threshold
        self.square: int = model.image_encoder.img_size

    def fits(self, height: int, width: int) -> bool:
        return bool(min(self.transform.get_preprocess_shape(height, width, self.square)) >= 1)

    def decode(self, prompts: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        model, corners = self.model, self.transform.apply_coords(prompts, self.original_size)
        corners = torch.as_tensor(corners, device=self.device)
        points = None
        if is_point := bool(corners.isnan().any()):
            points = corners[:, :1], torch.ones(len(corners), 1, dtype=torch.int, device=corners.device)
        sparse, dense = model.prompt_encoder(points=points, boxes=None if is_point else corners, masks=None)
        positions = model.prompt_encoder.get_dense_pe()
        low, iou = model.mask_decoder(self.features, positions, sparse, dense, multimask_output=is_point)
        return low, iou
