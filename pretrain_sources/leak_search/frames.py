"""Images to search through, by name: read in threads, and laid side by side for a person."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from pretrain_sources.image_files import Pixels, read_image
from safe_io.files import read_regular

SIDE = 128  # of a thumbnail in pixels; it is square, whatever the image's shape
READ_AHEAD = 256  # images in memory that are decoded beside the comparing
NAMED = 5  # images of one kind that a note names

Frame = tuple[str, Pixels | Exception]  # id, and grey values (H, W) or why there are none


class LeakSearchError(Exception):
    """No judgement can be had; the message says why and what to do."""


def read_frames(paths: Iterable[tuple[str, Path]]) -> Iterator[Frame]:
    """Images by id, decoded in threads and no larger than is needed here; the error in place of one that cannot be read."""
    rows = iter(paths)
    with ThreadPoolExecutor() as threads:
        ready: Iterator[Frame] = iter(())
        while batch := list(itertools.islice(rows, READ_AHEAD)):
            coming = threads.map(_read, batch)
            yield from ready
            ready = coming
        yield from ready


def _read(row: tuple[str, Path]) -> Frame:
    name, path = row
    try:
        return name, read_image(read_regular(path), side=SIDE).pixels
    except (OSError, ValueError) as error:
        return name, error


def notes_on(role: str, refused: Mapping[str, Sequence[str]]) -> list[str]:
    """A note for each reason why images were not compared. role: test, corpus or distinct."""
    return [note_on(role, why, names) for why, names in refused.items()]


def note_on(role: str, what: str, names: Sequence[str]) -> str:
    """A note on images of this role: how many they are, and the first of them."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} {role} image{'s' * (len(names) > 1)}: {what}: {', '.join(names[:NAMED])}{more}"


def side_by_side(test_image: Pixels, corpus_image: Pixels, height: int = 256) -> Pixels:
    """(height, W) the two images, each in its own shape, with a white line between them; for a person to judge."""
    panels = [
        np.asarray(Image.fromarray(image).resize((max(1, round(image.shape[1] * height / image.shape[0])), height)))
        for image in (test_image, corpus_image)
    ]
    line = np.full((height, 8), 255, np.uint8)
    return np.concatenate([panels[0], line, panels[1]], axis=1)
