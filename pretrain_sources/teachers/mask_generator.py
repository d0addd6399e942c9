"""segment_anything's automatic mask generator for any promptable model, without work on masks that it drops.

The package's upsamples every mask of the decoder to full resolution before filtering, which takes most of its time on a CPU.
Here masks of low predicted IoU are dropped first, and of the others only the region that can be non-empty is upsampled.
"""

import itertools
import math
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator
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
from torch import Tensor
from torch.nn import functional as F

from pretrain_sources.recipe import PromptedTeacher
from pretrain_sources.run_lengths import run_lengths
from pretrain_sources.teachers.contract import Masks, UnsuitableError

CHUNK_ON_GPU = 64  # masks at full resolution at a time; one on a CPU


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
    """Return Sam.postprocess_masks along one axis: upsample to `square`, keep the part that the image fills, resize to the frame.

    Both steps are linear and separable, so each axis is one matrix: an identity matrix, resized.
    """
    wide = F.interpolate(torch.eye(cells)[None, None], (square, cells), mode="bilinear")[:, :, :kept]
    matrix = F.interpolate(wide, (pixels, cells), mode="bilinear")[0, 0]
    used = (matrix > 0).numpy()
    return _Axis(matrix.to(device), used.argmax(1), cells - 1 - used[:, ::-1].argmax(1))


class Predictor(Protocol):
    """A promptable model with one image at a time, used like the package's SamPredictor.

    Attributes:
        mask_threshold: logits above it are mask. square: side that masks are upsampled to, before the part that the image fills
            is cut out and resized to the image. input_size: (H, W) of this part.
    """

    mask_threshold: float
    square: int
    input_size: tuple[int, int]

    def fits(self, height: int, width: int) -> bool:
        """Return whether an image of this size has a pixel in the model's square."""

    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Embed an image (H, W, 3)."""

    def reset_image(self) -> None:
        """Forget the image."""

    def decode(self, prompts: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Return logits (n, masks, h, w) and predicted IoUs (n, masks).

        prompts: (n, 2, 2), all points (and NaN), which get three masks each, or all boxes, which get one.
        """


class MaskGenerator(SamAutomaticMaskGenerator):  # type: ignore[misc]  # keeps the package's order, NMS, crops and clean-up
    """Mask generator with prompts (n, 2, 2): the corners of a box, or a point and NaN.

    Memory: one mask at full resolution at a time (64 on a GPU); three per prompt of a batch at the decoder's resolution.
    """

    def __init__(self, predictor: Predictor, settings: PromptedTeacher) -> None:
        # in place of the package's, which takes only models of its own classes
        own = {"prompts", "points_per_side", "box_scales", "box_overlap"}
        for name in PromptedTeacher.model_fields.keys() - own:
            setattr(self, name, getattr(settings, name))
        if settings.prompts == "boxes":  # only on the full frame
            self.crop_n_layers = 0
        self.predictor, self.point_grids = predictor, _grids(settings)

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
        for x0, y0, x1, y1 in generate_crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)[0]:
            height, width = y1 - y0, x1 - x0
            if min(height, width) < 1 or not self.predictor.fits(height, width):
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
        kinds = [self._decode(some) for some in (prompts[~is_box], prompts[is_box]) if len(some)]
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

    def _decode(self, prompts: NDArray[np.float64]) -> MaskData:
        """Run the decoder on points (three masks each) or boxes (one each); drop masks of low predicted IoU."""
        low, iou = self.predictor.decode(prompts)
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
        threshold, square, kept = self.predictor.mask_threshold, self.predictor.square, self.predictor.input_size
        lit = (low > threshold - self.stability_score_offset).any(0)  # other cells do not affect masks or stability
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


def _grids(settings: PromptedTeacher) -> list[NDArray[np.float64]]:
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
