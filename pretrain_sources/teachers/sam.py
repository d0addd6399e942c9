"""Segment Anything as a teacher: the package's automatic mask generator, without work on masks that it drops.

The generator upsamples every mask of the decoder to full resolution before filtering, which takes most of its time on a CPU.
Here masks of low predicted IoU are dropped first, and of the others only the region that can be non-empty is upsampled.
"""

import itertools
import math
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.modeling import Sam
from segment_anything.utils.amg import (
    MaskData,
    batched_mask_to_box,
    build_all_layer_point_grids,
    calculate_stability_score,
    generate_crop_boxes,
    is_box_near_crop_edge,
    rle_to_mask,
    uncrop_boxes_xyxy,
    uncrop_masks,
)
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F

from pretrain_sources.recipe import META_MODELS, SAM_TINY, SamTeacher
from pretrain_sources.run_lengths import run_lengths
from pretrain_sources.teachers import sam_weights
from pretrain_sources.teachers.contract import Masks, Teacher, TeacherError, UnsuitableError
from pretrain_sources.teachers.user_code import call_entry

CHUNK_ON_GPU = 64  # masks at full resolution at a time; one on a CPU


def open_teacher(settings: SamTeacher, weights: Path, device: str = "cpu") -> Teacher:
    """Open the teacher with its checkpoint. weights: the user's folder. device: cpu, or cuda, where it computes in fp16.

    Raises:
        TeacherError: the checkpoint is not available, cannot be read, or does not fit the model.
    """
    generator = _Generator(_load(settings, sam_weights.find_or_fetch(settings, weights), device), settings)

    def draw(image: NDArray[np.uint8]) -> Masks:
        return generator.masks(image)

    return draw


def _load(settings: SamTeacher, path: Path, device: str) -> Sam:
    model = _builder(settings.model)()
    if not isinstance(model, Sam):
        raise TeacherError(f"{settings.model} returned {type(model).__name__}, not a segment_anything.modeling.Sam")
    given, own = sam_weights.load_tensors(path), model.state_dict()
    differing = {
        "missing": sorted(own.keys() - given.keys()),
        "unknown": sorted(given.keys() - own.keys()),
        "of another shape": sorted(name for name in own.keys() & given.keys() if own[name].shape != given[name].shape),
        "not finite": sorted(name for name, tensor in given.items() if not bool(tensor.isfinite().all())),
    }
    if faults := [f"{len(names)} {what} ({names[0]})" for what, names in differing.items() if names]:
        raise TeacherError(
            f"{path} does not fit {settings.model}: tensors {', '.join(faults)}; set the `model` of this checkpoint"
        )
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


class _Axis(NamedTuple):
    """Interpolation from the decoder's cells to the frame's pixels along one axis.

    Attributes:
        matrix: (pixels, cells) weights. first, last: (pixels,) range of cells that a pixel depends on; non-decreasing.
    """

    matrix: Tensor
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def window(self, lit: Tensor) -> tuple[slice, slice]:
        """Return the pixels that depend on an active cell (or the first pixel), and their cells. lit: (cells,) bool."""
        cells = lit.nonzero().flatten().tolist() or [0]
        start = int(np.searchsorted(self.last, cells[0]))
        start = min(start, len(self.last) - 1)
        stop = max(start + 1, int(np.searchsorted(self.first, cells[-1], side="right")))
        return slice(start, stop), slice(int(self.first[start]), int(self.last[stop - 1]) + 1)


@lru_cache(maxsize=32)
def _axis(cells: int, square: int, kept: int, pixels: int, device: torch.device) -> _Axis:
    """Return Sam.postprocess_masks along one axis: upsample to the model's square, crop the padding, resize to the frame.

    Both steps are linear and separable, so each axis is one matrix: an identity matrix, resized.
    """
    wide = F.interpolate(torch.eye(cells)[None, None], (square, cells), mode="bilinear")[:, :, :kept]
    matrix = F.interpolate(wide, (pixels, cells), mode="bilinear")[0, 0]
    used = (matrix > 0).numpy()
    return _Axis(matrix.to(device), used.argmax(1), cells - 1 - used[:, ::-1].argmax(1))


class _Generator(SamAutomaticMaskGenerator):  # type: ignore[misc]  # keeps the package's order, NMS, crops and clean-up
    """Mask generator with prompts (n, 2, 2): the corners of a box, or a point and NaN.

    Memory: one mask at full resolution at a time (64 on a GPU); three per prompt of a batch at the decoder's resolution.
    """

    def __init__(self, model: Sam, settings: SamTeacher) -> None:
        crops = 0 if settings.prompts == "boxes" else settings.crop_n_layers  # boxes are only on the full frame
        own = {"kind", "model", "checkpoint", "sha256", "prompts", "points_per_side", "box_scales", "box_overlap"}
        shared = settings.model_dump(exclude=own) | {"crop_n_layers": crops}
        super().__init__(model, points_per_side=None, point_grids=_grids(settings), **shared)

    @torch.inference_mode()
    def masks(self, image: NDArray[np.uint8]) -> Masks:
        """Draw masks on a thermal image (H, W), in the package's order; N may be 0.

        Raises:
            UnsuitableError: a side of the image or of a crop is below one pixel at the model's size.
        """
        self._refuse_narrow(image.shape)
        data = self._generate_masks(np.repeat(image[..., None], 3, axis=2))
        if self.min_mask_region_area > 0:
            overlap = max(self.box_nms_thresh, self.crop_nms_thresh)
            data = self.postprocess_small_regions(data, self.min_mask_region_area, overlap)
        prompts = np.concatenate([data["points"], data["far_corners"]], axis=1)
        return Masks(
            masks=np.array([rle_to_mask(rle) for rle in data["rles"]], dtype=bool).reshape(-1, *image.shape),
            predicted_iou=data["iou_preds"],
            stability=np.nan_to_num(data["stability_score"]),  # NaN for empty masks
            prompts=tuple(tuple(prompt[np.isfinite(prompt)].tolist()) for prompt in prompts),
        )

    def _refuse_narrow(self, size: tuple[int, ...]) -> None:
        side = self.predictor.model.image_encoder.img_size
        for x0, y0, x1, y1 in generate_crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)[0]:
            height, width = y1 - y0, x1 - x0
            if min(height, width) < 1 or min(ResizeLongestSide.get_preprocess_shape(height, width, side)) < 1:
                crops = f" in crops of {self.crop_n_layers} layers" if self.crop_n_layers else ""
                raise UnsuitableError(f"{size[1]} x {size[0]} pixels is too narrow for SAM{crops}")

    def _process_crop(self, *args: object) -> MaskData:
        data = super()._process_crop(*args)
        data["crop_boxes"] = data["crop_boxes"].reshape(-1, 4)  # has one dimension less if there are no masks
        return data

    def _process_batch(
        self, prompts: NDArray[np.float64], size: tuple[int, int], crop: list[int], frame: tuple[int, int]
    ) -> MaskData:
        """Return the masks of a batch of prompts that pass all filters except NMS. size, frame: (H, W) of crop and frame."""
        is_box = np.isfinite(prompts[:, 1, 0])
        kinds = [self._decode(some, size) for some in (prompts[~is_box], prompts[is_box]) if len(some)]
        data = kinds[0]
        for more in kinds[1:]:
            data.cat(more)
        chunks = data["low"].split(CHUNK_ON_GPU if data["low"].is_cuda else 1)
        del data["low"]
        keep, stability, boxes, runs = zip(*(self._judge(chunk, size, crop, frame) for chunk in chunks), strict=True)
        data.filter(torch.cat(keep))
        data["stability_score"], data["boxes"] = torch.cat(stability), torch.cat(boxes)
        data["rles"] = list(itertools.chain(*runs))
        return data

    def _decode(self, prompts: NDArray[np.float64], size: tuple[int, int]) -> MaskData:
        """Run the decoder on points (three masks each) or boxes (one each); drop masks of low predicted IoU."""
        model, corners = self.predictor.model, self.predictor.transform.apply_coords(prompts, size)
        corners = torch.as_tensor(corners, device=self.predictor.device)
        points = None
        if is_point := bool(corners.isnan().any()):
            points = corners[:, :1], torch.ones(len(corners), 1, dtype=torch.int, device=corners.device)
        sparse, dense = model.prompt_encoder(points=points, boxes=None if is_point else corners, masks=None)
        positions = model.prompt_encoder.get_dense_pe()
        low, iou = model.mask_decoder(self.predictor.features, positions, sparse, dense, multimask_output=is_point)
        iou = iou.float()  # before it is compared with the threshold
        asking = torch.as_tensor(prompts.repeat(iou.shape[1], axis=0))
        data = MaskData(low=low.flatten(0, 1), iou_preds=iou.flatten(), points=asking[:, 0], far_corners=asking[:, 1])
        if self.pred_iou_thresh > 0:
            data.filter(data["iou_preds"] > self.pred_iou_thresh)
        data["low"] = data["low"].float()
        return data

    def _judge(
        self, low: Tensor, size: tuple[int, int], crop: list[int], frame: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, list[dict[str, Any]]]:
        """Return which masks (n, h, w) to keep, and their stabilities, boxes in the crop and run lengths in the frame."""
        threshold, square = self.predictor.model.mask_threshold, self.predictor.model.image_encoder.img_size
        lit = (low > threshold - self.stability_score_offset).any(0)  # other cells do not affect masks or stability
        kept = self.predictor.input_size
        down = _axis(low.shape[1], square, kept[0], size[0], low.device)
        across = _axis(low.shape[2], square, kept[1], size[1], low.device)
        (rows, i), (columns, j) = down.window(lit.any(1)), across.window(lit.any(0))
        logits = down.matrix[rows, i] @ low[:, i, j] @ across.matrix[columns, j].T
        stability = calculate_stability_score(logits, threshold, self.stability_score_offset)
        keep = (stability >= self.stability_score_thresh) | (self.stability_score_thresh == 0)
        masks = logits[keep] > threshold
        window = [columns.start, rows.start, columns.stop, rows.stop]
        boxes = uncrop_boxes_xyxy(batched_mask_to_box(masks), window) * masks.flatten(1).any(1)[:, None]
        inside = ~is_box_near_crop_edge(boxes, crop, [0, 0, frame[1], frame[0]])
        keep[keep.nonzero().flatten()] = inside
        x, y = crop[:2]
        whole = uncrop_masks(masks[inside], [window[0] + x, window[1] + y, window[2] + x, window[3] + y], *frame)
        return keep, stability[keep], boxes[inside], [_coco_rle(mask) for mask in whole.cpu().numpy()]


def _grids(settings: SamTeacher) -> list[NDArray[np.float64]]:
    """Return prompts (n, 2, 2) for each layer of crops, as shares of the crop's sides."""
    side, shrink = settings.points_per_side, settings.crop_n_points_downscale_factor
    grids = []
    for points in build_all_layer_point_grids(side, settings.crop_n_layers, shrink):
        grids.append(np.stack([points, np.full_like(points, np.nan)], axis=1))
    if settings.prompts == "points":
        return grids
    boxes = np.concatenate([_boxes(scale, settings.box_overlap) for scale in settings.box_scales])
    return [boxes] if settings.prompts == "boxes" else [np.concatenate([grids[0], boxes]), *grids[1:]]


def _boxes(scale: float, overlap: float) -> NDArray[np.float64]:
    """Return boxes (n, 2, 2) of one size that cover the frame; neighbours overlap by at least `overlap`."""
    steps = math.ceil((1 - scale) / (scale * (1 - overlap)) - 1e-9)
    starts = np.linspace(0, 1 - scale, steps + 1)
    corners = np.stack(np.meshgrid(starts, starts), axis=-1).reshape(-1, 2)
    return np.stack([corners, corners + scale], axis=1)


def _coco_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a mask (H, W) like the package's mask_to_rle_pytorch."""
    counts = run_lengths(mask).astype(np.int64)  # an array, because the package makes deep copies
    return {"size": list(mask.shape), "counts": counts}
