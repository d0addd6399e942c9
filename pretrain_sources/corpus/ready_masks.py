"""Ready-made masks in place of a teacher's: the same interface as `MaskCache`, without a cache."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pretrain_sources.corpus.labels import EncodedMasks, encode_masks
from pretrain_sources.corpus.mask_cache import ImageMasks, MaskCache, Refusal
from pretrain_sources.file_state import read_unchanged
from pretrain_sources.image_files import read_image
from pretrain_sources.pool import PoolImage
from pretrain_sources.recipe import CocoTeacher
from pretrain_sources.teachers import Masks, Settings, ready_masks
from pretrain_sources.teachers.ready_file import ReadyFile, ReadyMask, WrongSizeError

BEYOND = "annotations of images that the pool lacks"


@dataclass(frozen=True)
class ReadyMasks:
    """The masks of a file or folder, by image of the pool.

    Attributes:
        index: id of an image -> its place in `file.images`. left_out: reason -> number of annotations that are not used.
    """

    file: ReadyFile
    index: Mapping[str, int]
    left_out: Mapping[str, int]
    device_used: None = None

    def over(self, images: Sequence[PoolImage], jobs: int = 1) -> Iterator[ImageMasks]:
        """Yield the masks of each image in order. jobs: not used, as each process would hold all masks.

        Raises:
            TeacherError: a mask is invalid. FileChangedError: an image has changed since it was listed.
        """
        return map(self._masks_of, images)

    def _masks_of(self, image: PoolImage) -> ImageMasks:
        try:
            size = read_image(read_unchanged(image.path, image.sha256)).pixels.shape
        except (OSError, ValueError) as error:
            return ImageMasks(image, (0, 0), Refusal("unreadable", f"{image.path}: {error}"))
        place = self.index.get(image.id)
        masks = () if place is None else self.file.images[place].masks
        if not masks:
            return ImageMasks(image, size, Refusal("no mask", f"{image.path}: no mask of it in {self.file.path.name}"))
        try:
            return ImageMasks(image, size, EncodedMasks(pa.concat_tables([_row(one, size) for one in masks]), size))
        except WrongSizeError as error:
            return ImageMasks(image, size, Refusal("mask size", f"{image.path}: {error}"))


def _row(mask: ReadyMask, size: tuple[int, int]) -> pa.Table:
    """Encode one mask: only one at a time is in memory."""
    iou, stability = (np.array([value], np.float32) for value in (mask.predicted_iou, mask.stability))
    return encode_masks(Masks(mask.draw(size)[None], iou, stability, prompts=((),))).table


def open_masks(
    settings: Settings, weights: Path, folder: Path, device: str, pool: Sequence[PoolImage]
) -> MaskCache | ReadyMasks:
    """Return the masks of a teacher on the images of a pool: ready-made ones, or those that it draws, cached in `folder`.

    Raises:
        TeacherError: ready-made masks cannot be read, or their names do not tell which image is meant.
    """
    if not isinstance(settings, CocoTeacher):
        return MaskCache(settings, weights, folder, device)
    file = ready_masks.read(settings, weights)
    index = ready_masks.matched(file, [image.id for image in pool])
    used = set(index.values())
    beyond = sum(len(image.masks) for i, image in enumerate(file.images) if i not in used)
    return ReadyMasks(file, index, {**file.left_out, **({BEYOND: beyond} if beyond else {})})
