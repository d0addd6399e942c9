"""Cache of a teacher's masks, one file per image, so that interrupted runs resume and recipes share masks."""

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pretrain_sources.corpus.labels import MASK_SCHEMA, EncodedMasks, encode_masks
from pretrain_sources.file_state import read_unchanged
from pretrain_sources.image_files import read_image
from pretrain_sources.pool import PoolImage
from pretrain_sources.processors import cores
from pretrain_sources.sockets import shorten_socket_paths
from pretrain_sources.teachers import Settings, Teacher, TeacherError, UnsuitableError, open_teacher, told_as_its_own
from safe_io.files import sealed, unsealed, whole

CACHED = "masks 1"  # raised when the meaning of the table changes


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
        weights: folder of the teacher's checkpoint. folder: of the mask files; for one teacher only.
    """

    teacher: Settings
    weights: Path
    folder: Path

    def masks_of(self, image: PoolImage) -> ImageMasks:
        """Return the teacher's masks on this image, from the cache or from the teacher.

        Raises:
            TeacherError: the teacher cannot be opened, or a user's own fails. FileChangedError: the image has changed since it
                was listed.
        """
        try:
            file = read_image(read_unchanged(image.path, image.sha256))
        except (OSError, ValueError) as error:
            return ImageMasks(image, (0, 0), Refusal("unreadable", f"{image.path}: {error}"))
        pixels, suffix = file.pixels, "-2" if file.facts.once_read_otherwise else ""
        path = self.folder / image.sha256[:2] / f"{image.sha256}{suffix}.parquet"
        if (masks := _read(path)) is None:
            teacher = _opened(self.teacher, self.weights)
            try:
                with told_as_its_own(self.teacher, f"failed on {image.path}"):
                    masks = encode_masks(teacher(pixels))
            except UnsuitableError as error:
                return ImageMasks(image, pixels.shape, Refusal("unsuitable", f"{image.path}: {error}"))
            _keep(masks, path)
        if masks.size != pixels.shape:
            sizes = f"{_size(masks.size)}, the image {_size(pixels.shape)}"
            return ImageMasks(image, pixels.shape, Refusal("mask size", f"{image.path}: masks of {sizes}"))
        if not masks.table.num_rows:
            return ImageMasks(image, pixels.shape, Refusal("no mask", f"{image.path}: the teacher drew no mask"))
        return ImageMasks(image, pixels.shape, masks)

    def over(self, images: Sequence[PoolImage], jobs: int = 1) -> Iterator[ImageMasks]:
        """Yield `masks_of` every image in order, in `jobs` processes (use one for teachers on a GPU).

        Raises:
            TeacherError: the teacher cannot be opened, a user's own fails, or a process dies. FileChangedError: an image has
                changed since it was listed.
        """
        if jobs <= 1:
            yield from map(self.masks_of, images)
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


_open: dict[tuple[str, Path], Teacher] = {}


def _opened(settings: Settings, weights: Path) -> Teacher:
    """Open a teacher once per process, only when a mask is not cached."""
    key = (settings.model_dump_json(), weights)
    if key not in _open:
        _open[key] = open_teacher(settings, weights)
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
