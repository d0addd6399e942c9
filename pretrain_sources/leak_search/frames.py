"""Images by name for the search: reading them in threads, and showing two side by side."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from pretrain_sources.image_files import Pixels, read_image
from safe_io.files import read_regular

SIDE = 128  # of a thumbnail in pixels; square for any shape of image
READ_AHEAD = 256  # images decoded while others are compared
NAMED = 5  # images listed in a note

Frame = tuple[str, Pixels | Exception]  # id, and grey values (H, W) or the error


class LeakSearchError(Exception):
    """The search is impossible; the message says why and what to do."""


def read_frames(paths: Iterable[tuple[str, Path]]) -> Iterator[Frame]:
    """Decode images in threads at reduced size; yield (id, image, or the error if it cannot be read)."""
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
    """Return a note for each reason why images were not compared. role: test, corpus or distinct."""
    return [note_on(role, why, names) for why, names in refused.items()]


def note_on(role: str, what: str, names: Sequence[str]) -> str:
    """Return a note on images of this role, with their number and the first names."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} {role} image{'s' * (len(names) > 1)}: {what}: {', '.join(names[:NAMED])}{more}"


def side_by_side(test_image: Pixels, corpus_image: Pixels, height: int = 256) -> Pixels:
    """Place two images next to each other, scaled to the same height, with a white line between: (height, W)."""
    panels = [
        np.asarray(Image.fromarray(image).resize((max(1, round(image.shape[1] * height / image.shape[0])), height)))
        for image in (test_image, corpus_image)
    ]
    line = np.full((height, 8), 255, np.uint8)
    return np.concatenate([panels[0], line, panels[1]], axis=1)
