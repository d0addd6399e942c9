"""Cache of a teacher's masks, one file per image, so that interrupted runs resume and recipes share masks."""

import io
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pretrain_sources.corpus.labels import MASK_SCHEMA, EncodedMasks, encode_masks
from pretrain_sources.file_state import read_unchanged
from pretrain_sources.image_files import Pixels, read_image
from pretrain_sources.pool import PoolImage
from pretrain_sources.processors import cores
from pretrain_sources.sockets import shorten_socket_paths
from pretrain_sources.teachers import (
    Drawing,
    Masks,
    Teacher,
    TeacherError,
    UnsuitableError,
    device_used,
    open_teacher,
    told_as_its_own,
)
from safe_io.files import sealed, unsealed, whole

CACHED = "masks 1"  # raised when the meaning of the table changes
AHEAD = 3  # images whose masks are drawn on a GPU before they are asked for: bounds the memory


@dataclass(frozen=True)
class Refusal:
    """The reason why an image gets no label map."""

    kind: str  # unreadable, unsuitable, no mask, mask size
    why: str


@dataclass(frozen=True)
class ImageMasks:
    """An image, its size (H, W), and its masks or the reason for its refusal."""

    image: PoolImage
    size: tuple[int, int]
    masks: EncodedMasks | Refusal


@dataclass(frozen=True)
class MaskCache:
    """A teacher's masks, one file per image.

    Attributes:
        weights: folder of the teacher's checkpoint. folder: of the mask files; for one teacher only. device: cpu or cuda;
            masks drawn on a GPU have files of their own, as they differ a little from a CPU's.
    """

    teacher: Drawing
    weights: Path
    folder: Path
    device: str = "cpu"

    @property
    def device_used(self) -> str | None:
        """The device that the teacher draws on: cpu, cuda, or None if unknown."""
        return device_used(self.teacher, self.device)

    @property
    def left_out(self) -> Mapping[str, int]:
        """Nothing: all masks of a teacher are used."""
        return {}

    def masks_of(self, image: PoolImage) -> ImageMasks:
        """Return the teacher's masks on this image, from the cache or from the teacher.

        Raises:
            TeacherError: the teacher cannot be opened, or a user's own fails. FileChangedError: the image has changed since it
                was listed.
        """
        return self._finish(self._draw(self._read(image)))

    def over(self, images: Sequence[PoolImage], jobs: int = 1) -> Iterator[ImageMasks]:
        """Yield `masks_of` every image in order, in `jobs` processes (use one for teachers on a GPU).

        Raises:
            TeacherError: the teacher cannot be opened, a user's own fails, or a process dies. FileChangedError: an image has
                changed since it was listed.
        """
        if jobs <= 1:
            yield from self._overlapped(images) if self.device_used == "cuda" else map(self.masks_of, images)
            return
        shorten_socket_paths()
        context = multiprocessing.get_context("forkserver")
        threads = max(1, cores() // jobs)
        workers = ProcessPoolExecutor(jobs, mp_context=context, initializer=_follow_the_parent, initargs=(threads,))
        try:
            for begin in range(0, len(images), step := 16 * jobs):  # bounds the results in memory
                yield from workers.map(self.masks_of, images[begin : begin + step])
        except BrokenProcessPool as error:
            raise TeacherError(
                "a worker process of the teacher died: it was killed, perhaps for lack of memory, or the teacher's code "
                "exits the process; --jobs 1 runs the teacher in this process"
            ) from error
        finally:
            workers.shutdown(wait=False, cancel_futures=True)

    def _overlapped(self, images: Sequence[PoolImage]) -> Iterator[ImageMasks]:
        """Yield as `over` does, and keep a GPU busy: other threads read the next images and keep the masks of those before."""
        threads = [ThreadPoolExecutor(1) for _ in range(3)]
        waiting: deque[Future[ImageMasks]] = deque()
        try:
            for image in images:
                waiting.append(self._queued(image, *threads))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for thread in threads:
                thread.shutdown(cancel_futures=True)

    def _queued(self, image: PoolImage, reader: Executor, drawer: Executor, keeper: Executor) -> "Future[ImageMasks]":
        read = reader.submit(self._read, image)
        drawn = drawer.submit(lambda: self._draw(read.result()))
        return keeper.submit(lambda: self._finish(drawn.result()))

    def _read(self, image: PoolImage) -> "_Task":
        """Decode the image and look for its masks in the cache."""
        try:
            file = read_image(read_unchanged(image.path, image.sha256))
        except (OSError, ValueError) as error:
            why = Refusal("unreadable", f"{image.path}: {error}")
            return _Task(image, np.zeros((0, 0), np.uint8), self.folder, why)
        suffix = "-2" if file.facts.once_read_otherwise else ""
        suffix += "-cuda" if self.device_used == "cuda" else ""
        path = self.folder / image.sha256[:2] / f"{image.sha256}{suffix}.parquet"
        return _Task(image, file.pixels, path, _read(path))

    def _draw(self, task: "_Task") -> "_Task":
        """Call the teacher unless there are masks or a reason for a refusal."""
        if task.masks is not None:
            return task
        teacher = _opened(self.teacher, self.weights, self.device)
        try:
            with told_as_its_own(self.teacher, f"failed on {task.image.path}"):
                return replace(task, masks=teacher(task.pixels))
        except UnsuitableError as error:
            return replace(task, masks=Refusal("unsuitable", f"{task.image.path}: {error}"))

    def _finish(self, task: "_Task") -> ImageMasks:
        """Encode and keep masks that were drawn, and refuse those that cannot be used."""
        image, shape, masks = task.image, task.pixels.shape, task.masks
        assert masks is not None
        if isinstance(masks, Masks):
            with told_as_its_own(self.teacher, f"failed on {image.path}"):
                masks = encode_masks(masks)
            _keep(masks, task.path)
        if isinstance(masks, Refusal):
            return ImageMasks(image, shape, masks)
        if masks.size != shape:
            sizes = f"{_size(masks.size)}, the image {_size(shape)}"
            return ImageMasks(image, shape, Refusal("mask size", f"{image.path}: masks of {sizes}"))
        if not masks.table.num_rows:
            return ImageMasks(image, shape, Refusal("no mask", f"{image.path}: the teacher drew no mask"))
        return ImageMasks(image, shape, masks)


@dataclass(frozen=True)
class _Task:
    """An image with its mask file and what is known of its masks. masks: None until the teacher is called."""

    image: PoolImage
    pixels: Pixels
    path: Path
    masks: EncodedMasks | Masks | Refusal | None


_open: dict[tuple[str, Path, str], Teacher] = {}


def _opened(settings: Drawing, weights: Path, device: str) -> Teacher:
    """Open a teacher once per process, only when a mask is not cached."""
    key = (settings.model_dump_json(), weights, device)
    if key not in _open:
        _open[key] = open_teacher(settings, weights, device)
    return _open[key]


def _follow_the_parent(threads: int) -> None:
    """Initialise a worker: ignore Ctrl-C, which the parent handles, and exit with the parent. `threads`: for torch."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _keep(masks: EncodedMasks, path: Path) -> None:
    size = {"height": str(masks.size[0]), "width": str(masks.size[1])}
    table = io.BytesIO()
    pq.write_table(masks.table.replace_schema_metadata(size), table, compression="zstd")
    with whole(path, sync=False) as aside:  # a file damaged by a power cut is drawn again
        aside.write_bytes(sealed(table.getvalue(), CACHED))


def _read(path: Path) -> EncodedMasks | None:
    try:
        table = pq.read_table(pa.BufferReader(unsealed(path.read_bytes(), CACHED)))
        facts = table.schema.metadata
        size = int(facts[b"height"]), int(facts[b"width"])
        return EncodedMasks(table.replace_schema_metadata(None).cast(MASK_SCHEMA), size)
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException):
        return None  # missing or damaged


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"
