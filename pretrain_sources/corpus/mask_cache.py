"""What a teacher drew, kept image by image, so that a killed pass over images goes on and other recipes share it."""

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

CACHED = "masks 1"  # raised when the same table means other masks


@dataclass(frozen=True)
class Refusal:
    """Why an image gets no label map."""

    kind: str  # unreadable, unsuitable, no mask, mask size
    why: str


@dataclass(frozen=True)
class ImageMasks:
    """An image, its size (H, W), and what the teacher drew on it, or why it is refused."""

    image: PoolImage
    size: tuple[int, int]
    masks: EncodedMasks | Refusal


@dataclass(frozen=True)
class MaskCache:
    """A teacher's masks, a file for each image.

    Attributes:
        weights: where the teacher's checkpoint lies. folder: that of the files; one teacher has it to itself.
    """

    teacher: Settings
    weights: Path
    folder: Path

    def masks_of(self, image: PoolImage) -> ImageMasks:
        """What the teacher draws on this image: read from the folder, or asked and kept.

        Raises:
            TeacherError: the teacher cannot be opened, or a user's own fails. FileChangedError: the file is not the one that
                was listed.
        """
        try:
            found = read_image(read_unchanged(image.path, image.sha256))
        except (OSError, ValueError) as error:
            return ImageMasks(image, (0, 0), Refusal("unreadable", f"{image.path}: {error}"))
        pixels, again = found.pixels, "-2" if found.facts.once_read_otherwise else ""
        path = self.folder / image.sha256[:2] / f"{image.sha256}{again}.parquet"
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
        """`masks_of` every image in order, `jobs` processes at a time (teachers on a GPU should have one).

        Raises:
            TeacherError: the teacher cannot be opened, a user's own fails, or a process ends. FileChangedError: a file is not
                the one that was listed.
        """
        if jobs <= 1:
            yield from map(self.masks_of, images)
            return
        shorten_socket_paths()
        context = multiprocessing.get_context("forkserver")
        threads = max(1, cores() // jobs)
        workers = ProcessPoolExecutor(jobs, mp_context=context, initializer=_follow_the_parent, initargs=(threads,))
        try:
            for begin in range(0, len(images), step := 16 * jobs):  # what may wait in memory at a time
                yield from workers.map(self.masks_of, images[begin : begin + step])
        except BrokenProcessPool as error:
            raise TeacherError(
                "a process that asked the teacher ended without a word: it was killed, perhaps for want of memory, or the "
                "teacher's own code ends the process; --jobs 1 asks in one process"
            ) from error
        finally:
            workers.shutdown(wait=False, cancel_futures=True)  # who stops is told so at once


_open: dict[tuple[str, Path], Teacher] = {}


def _opened(settings: Settings, weights: Path) -> Teacher:
    """Opened once a process, and only if an image has not been asked about."""
    key = (settings.model_dump_json(), weights)
    if key not in _open:
        _open[key] = open_teacher(settings, weights)
    return _open[key]


def _follow_the_parent(threads: int) -> None:
    """Ctrl-C is the parent's to act on, and a worker ends when its parent is gone. `threads`: for torch, if it is loaded."""
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
    with whole(path, sync=False) as aside:  # what a power cut tears is asked for again
        aside.write_bytes(sealed(table.getvalue(), CACHED))


def _read(path: Path) -> EncodedMasks | None:
    try:
        table = pq.read_table(pa.BufferReader(unsealed(path.read_bytes(), CACHED)))
        facts = table.schema.metadata
        size = int(facts[b"height"]), int(facts[b"width"])
        return EncodedMasks(table.replace_schema_metadata(None).cast(MASK_SCHEMA), size)
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException):
        return None  # not there, or damaged


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"
