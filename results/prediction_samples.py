"""A small, fixed sample of test images and what each run predicted on them, for the eye. It stays in the store: no number comes
from it, and it is never packed or published.

    <store>/units/sample/<target>-<protocol>/{images,labels}.npz    once for each
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
    """The same few of a split's image ids, whoever asks."""
    return frozenset(sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:COUNT])


def small(picture: Pixels) -> Pixels:
    """Every n-th pixel (H, W), so that label maps stay label maps."""
    step = -(-max(picture.shape) // LONGEST_PX)
    return np.ascontiguousarray(picture[::step, ::step], dtype=np.uint8)


def predictions_file(store: Store, run: str) -> Path:
    """Where a run's predictions are."""
    return store.unit_dir("final", run) / "sample.npz"


def truth_files(store: Store, target_hash: str, protocol_hash: str) -> tuple[Path, Path]:
    """Where images and labels are, as a protocol sees them: it may merge classes, or take fewer frames."""
    folder = store.unit_dir("sample", slug(f"{target_hash[:16]}-{protocol_hash[:16]}"))
    return folder / "images.npz", folder / "labels.npz"


def write(path: Path, pictures: Mapping[str, Pixels]) -> None:
    """Writes pictures, made small.

    Raises:
        StoreError: the store cannot be written.
    """
    buffer = io.BytesIO()
    parts = {f"p{i}": small(picture) for i, picture in enumerate(pictures.values())}
    np.savez_compressed(buffer, ids=np.array(list(pictures)), **parts)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def read(path: Path) -> dict[str, Pixels]:
    """Pictures by image id; empty where none were kept or the file is torn."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {str(name): arrays[f"p{i}"] for i, name in enumerate(arrays["ids"])}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return {}
