"""SAM's training (Kirillov et al., "Segment Anything", ICCV 2023, appendix A) at a small scale: prompts, rounds, loss."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from bench.sam_tiny.pictures import Bools, Picture, picture
from pretrain_sources.hashing import derive_seed

POINTS = 0.65  # share of the prompts that are points; the others are boxes
SECOND_ROUND = 0.2  # share of the images with a second round: a point that corrects the mask
FOCAL = 20.0  # weight relative to Dice, as in SAM
OTHERS = 0.05  # weight of the candidates that are not the best, so that all of them learn
BALANCED_STEPS = 300  # steps over which a class-balanced cross-entropy fades out; without it masks stay empty for long


def losses_of(
    model: Sam, real: Sequence[Path], seed: int, step: int, places: Sequence[int], prompts: int
) -> tuple[Tensor, Tensor]:
    """Compute (loss, IoU of the chosen masks (P,)) summed over the images at these places of the batch of a step."""
    pictures = [picture(real, seed, step, place) for place in places]
    images = torch.stack([model.preprocess(as_image(one).to(model.device)) for one in pictures])
    features = model.image_encoder(images.contiguous(memory_format=torch.channels_last))
    fade = max(0.0, 1 - step / BALANCED_STEPS)
    losses, ious = [], []
    for place, one, embedding in zip(places, pictures, features.split(1), strict=True):
        rng = np.random.default_rng(derive_seed("sam-tiny prompts", seed, step, place))
        loss, iou = _prompted(model, one, embedding.contiguous(), prompts, fade, rng)
        losses.append(loss)
        ious.append(iou)
    return torch.stack(losses).sum(), torch.cat(ious)


def _prompted(
    model: Sam, one: Picture, features: Tensor, prompts: int, fade: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Compute (loss, IoU of the mask that the model ranks first for each point) on one image. features: (1, C, h, w)."""
    chosen = rng.choice(len(one.masks), prompts, p=one.weights / one.weights.sum())
    masks, device = one.masks[chosen], model.device
    wanted = _at_stride_2(masks, model.image_encoder.img_size).to(device)
    n = round(POINTS * prompts)
    points = torch.tensor(np.array([_inside(mask, rng) for mask in masks[:n]]), dtype=torch.float32, device=device)
    boxes = torch.tensor(np.array([_around(mask, rng) for mask in masks[n:]]), dtype=torch.float32, device=device)
    ones = torch.ones(n, 1, dtype=torch.int, device=device)
    by_point, dense = model.prompt_encoder(points=(points[:, None], ones), boxes=None, masks=None)
    by_box, more = model.prompt_encoder(points=None, boxes=boxes, masks=None)
    low, iou = _decode(model, features, torch.cat([by_point, by_box]), torch.cat([dense, more]))
    first, best, true = _loss(low[:n, 1:], iou[:n, 1:], wanted[:n], fade)
    second, _, _ = _loss(low[n:, :1], iou[n:, :1], wanted[n:], fade)
    loss = (n * first + (prompts - n) * second) / prompts
    if rng.random() < SECOND_ROUND:
        before = low[:n, 1:][torch.arange(n), best].detach()
        corrections, signs = _mistakes(before > 0, wanted[:n] > 0, rng)
        both = (
            torch.cat([points[:, None], corrections.to(device)[:, None]], 1),
            torch.cat([ones, signs.to(device)[:, None]], 1),
        )
        sparse, dense = model.prompt_encoder(points=both, boxes=None, masks=before[:, None])
        low, iou = _decode(model, features, sparse, dense)
        loss = loss + 0.5 * _loss(low[:, :1], iou[:, :1], wanted[:n], fade)[0]
    return loss, true


def as_image(one: Picture) -> Tensor:
    """Return (3, H, W) grey values, the input of Sam.preprocess."""
    return torch.from_numpy(one.thermal).float().expand(3, -1, -1)


def _at_stride_2(masks: Bools, side: int) -> Tensor:
    """Downsample masks to (P, side / 2, side / 2) of 0 and 1; a pixel is 1 if the mask covers at least half of it."""
    height, width = masks.shape[1:]
    square = F.pad(torch.from_numpy(masks).float(), (0, side - width, 0, side - height))
    return (F.avg_pool2d(square[:, None], 2)[:, 0] >= 0.5).float()


def _inside(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float]:
    """Draw a pixel of the mask uniformly; return its centre (x, y)."""
    flat = int(rng.choice(np.flatnonzero(mask)))
    return flat % mask.shape[1] + 0.5, flat // mask.shape[1] + 0.5


def _around(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the mask's box (x0, y0, x1, y1) with noise of a tenth of its size, at most 20 pixels, as in SAM."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
    size = np.tile(box[2:] - box[:2], 2)
    noisy: NDArray[np.float64] = box + (rng.normal(0, 0.1, 4) * size).clip(-20, 20)
    return noisy


def _mistakes(drawn: Tensor, wanted: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw (P, 2) a wrong pixel of each mask (a true one if none is wrong), and (P,) whether it belongs to the object."""
    points, signs = [], []
    for wrong, true in zip((drawn != wanted).cpu().numpy(), wanted.cpu().numpy(), strict=True):
        places = np.flatnonzero(wrong if wrong.any() else true if true.any() else ~true)
        flat = int(rng.choice(places))
        points.append((2 * (flat % true.shape[1]) + 1.0, 2 * (flat // true.shape[1]) + 1.0))
        signs.append(int(true.ravel()[flat]))
    return torch.tensor(points), torch.tensor(signs, dtype=torch.int)


def _decode(model: Sam, features: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
    """Compute (P, 4, h, w) logits and (P, 4) predicted IoUs: the mask for clear prompts first, then the three for a point."""
    low, iou = model.mask_decoder.predict_masks(features, model.prompt_encoder.get_dense_pe(), sparse, dense)
    return low, iou


def _loss(low: Tensor, iou: Tensor, wanted: Tensor, fade: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compute (loss, the candidate with the smallest loss (P,), true IoU of the candidate that the model ranks first (P,)).

    low: (P, C, h, w). iou: (P, C). wanted: (P, h, w).
    """
    target = wanted[:, None].expand_as(low)
    entropy = F.binary_cross_entropy_with_logits(low, target, reduction="none")
    share = low.sigmoid()
    focal = ((0.75 - 0.5 * target) * (share - target).abs() ** 2 * entropy).mean((2, 3))
    dice = 1 - (2 * (share * target).sum((2, 3)) + 1) / (share.sum((2, 3)) + target.sum((2, 3)) + 1)
    each = FOCAL * focal + dice
    if fade:
        inside, outside = target, 1 - target
        balanced = [(entropy * part).sum((2, 3)) / part.sum((2, 3)).clamp(min=1) for part in (inside, outside)]
        each = each + fade * (balanced[0] + balanced[1])
    with torch.no_grad():
        drawn = low > 0
        both = (drawn & (target > 0)).sum((2, 3)).float()
        true = both / (drawn | (target > 0)).sum((2, 3)).clamp(min=1)
        best = each.argmin(1)
        chosen = true.gather(1, iou.argmax(1, keepdim=True))[:, 0]
    return each.amin(1).mean() + OTHERS * each.mean() + F.mse_loss(iou, true), best, chosen
