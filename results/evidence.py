"""Evidence: per-image results from which the scores of a run can be recomputed without images or a GPU."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**26  # uncompressed; 1,000 images of 21 classes take 4 MB


@dataclass(frozen=True)
class Evidence:
    """Per-image results on the test split. N images, K classes."""

    image_ids: NDArray[np.str_]  # (N,)
    groups: NDArray[np.str_]  # (N,) flight or sequence; images of one group are not independent
    confusion: NDArray[np.int64]  # (N, K, K) pixels, rows are truth
    weighted_f: NDArray[np.float64]  # (N, K), NaN where the class is absent from the truth of the image

    def __post_init__(self) -> None:
        n, k = len(self.image_ids), self.confusion.shape[-1]
        kinds = {"image_ids": "U", "groups": "U", "confusion": "i", "weighted_f": "f"}
        types = {name: getattr(self, name).dtype for name in kinds}
        if odd := [name for name, kind in kinds.items() if types[name].kind != kind or not types[name].itemsize]:
            raise ValueError(f"evidence: {odd[0]} has the wrong type {types[odd[0]]}")
        if self.image_ids.ndim != 1 or self.confusion.ndim != 3:
            raise ValueError("evidence: image_ids must be (N,), confusion (N, K, K)")
        shapes = {"groups": (n,), "confusion": (n, k, k), "weighted_f": (n, k)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"evidence: {name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(set(self.image_ids.tolist())) != n:
            raise ValueError("evidence: duplicate image id")

    def to_bytes(self) -> bytes:
        """Serialise as compressed .npz; deterministic for a given numpy version."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            image_ids=self.image_ids,
            groups=self.groups,
            confusion=self.confusion.astype(np.int64),
            weighted_f=self.weighted_f,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Evidence":
        """Parse the output of `to_bytes`.

        Raises:
            ValueError: the data is truncated, too large, or contains anything else (a pickle, for example).
        """
        names = ("image_ids", "groups", "confusion", "weighted_f")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sorted(archive.namelist()) != sorted(f"{name}.npy" for name in names):
                    raise ValueError(
                        f"evidence: the file contains {', '.join(archive.namelist())[:200]}, expected {', '.join(names)}"
                    )
                if (size := sum(info.file_size for info in archive.infolist())) > MOST_BYTES:
                    raise ValueError(
                        f"evidence: the file is too large: {size:,} bytes uncompressed; at most {MOST_BYTES:,}"
                    )
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in names})
        except Exception as error:  # broken files raise many kinds of error
            message = str(error)
            raise ValueError(
                message if message.startswith("evidence") else f"evidence: cannot be read ({message})"
            ) from error


def joined(parts: Sequence[Evidence]) -> Evidence:
    """Return the evidence of several test splits as one.

    Raises:
        ValueError: an image is in two of them, or they have different classes.
    """
    names = ("image_ids", "groups", "confusion", "weighted_f")
    return Evidence(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def sha256(data: bytes) -> str:
    """Return the SHA-256 hex digest."""
    return hashlib.sha256(data).hexdigest()
