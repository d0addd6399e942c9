"""A small, fixed sample of test images and predictions for visual inspection. It is not used for scores and never published.

<store>/units/sample/<target>-<protocol>/{images,labels}.npz    images and labels of a target and protocol
<store>/units/final/<run>/sample.npz                           predictions of a run
"""

import hashlib
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from results.store import Store, slug, write_atomic

COUNT = 12
LONGEST_PX = 320

Pixels = NDArray[np.uint8]


def sample_ids(ids: Sequence[str]) -> frozenset[str]:
    """Choose a fixed sample of the image ids of a split."""
    return frozenset(sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:COUNT])


def small(picture: Pixels) -> Pixels:
    """Downsample (H, W) by taking every n-th pixel, which keeps labels intact."""
    step = -(-max(picture.shape) // LONGEST_PX)
    return np.ascontiguousarray(picture[::step, ::step], dtype=np.uint8)


def predictions_file(store: Store, run: str) -> Path:
    """Return the path of the predictions of a run."""
    return store.unit_dir("final", run) / "sample.npz"


def truth_files(store: Store, target_hash: str, protocol_hash: str) -> tuple[Path, Path]:
    """Return the paths of images and labels. They depend on the protocol, which may merge classes or drop frames."""
    folder = store.unit_dir("sample", slug(f"{target_hash[:16]}-{protocol_hash[:16]}"))
    return folder / "images.npz", folder / "labels.npz"


def write(path: Path, pictures: Mapping[str, Pixels]) -> None:
    """Write downsampled pictures.

    Raises:
        StoreError: the file cannot be written.
    """
    buffer = io.BytesIO()
    parts = {f"p{i}": small(picture) for i, picture in enumerate(pictures.values())}
    np.savez_compressed(buffer, ids=np.array(list(pictures)), **parts)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def read(path: Path) -> dict[str, Pixels]:
    """Read pictures by image id; empty if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {str(name): arrays[f"p{i}"] for i, name in enumerate(arrays["ids"])}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return {}
