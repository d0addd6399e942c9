"""Evidence: what the scores of a run are recomputed from, without images and without a GPU."""

import hashlib
import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**26  # unpacked: 1,000 images of 21 classes are 4 MB


@dataclass(frozen=True)
class Evidence:
    """Per-image results on the test split. N images, K classes."""

    image_ids: NDArray[np.str_]  # (N,)
    groups: NDArray[np.str_]  # (N,) flight, sequence: images of one group are not independent
    confusion: NDArray[np.int64]  # (N, K, K) pixels, rows truth
    weighted_f: NDArray[np.float64]  # (N, K), NaN where the class is absent from the image's truth

    def __post_init__(self) -> None:
        n, k = len(self.image_ids), self.confusion.shape[-1]
        kinds = {"image_ids": "U", "groups": "U", "confusion": "i", "weighted_f": "f"}
        types = {name: getattr(self, name).dtype for name in kinds}
        if odd := [name for name, kind in kinds.items() if types[name].kind != kind or not types[name].itemsize]:
            raise ValueError(f"evidence: {odd[0]} is of type {types[odd[0]]}")
        if self.image_ids.ndim != 1 or self.confusion.ndim != 3:
            raise ValueError("evidence: image_ids must be (N,), confusion (N, K, K)")
        shapes = {"groups": (n,), "confusion": (n, k, k), "weighted_f": (n, k)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"evidence: {name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(set(self.image_ids.tolist())) != n:
            raise ValueError("evidence: an image id occurs twice")

    def to_bytes(self) -> bytes:
        """A compressed .npz; the same evidence gives the same bytes on the same numpy."""
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
        """Reads what `to_bytes` wrote.

        Raises:
            ValueError: it is torn, holds something else, a pickle for example, or would not fit into memory.
        """
        names = ("image_ids", "groups", "confusion", "weighted_f")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as held:
                if sorted(held.namelist()) != sorted(f"{name}.npy" for name in names):
                    raise ValueError(
                        f"evidence: it holds {', '.join(held.namelist())[:200]}, expected {', '.join(names)}"
                    )
                if (size := sum(info.file_size for info in held.infolist())) > MOST_BYTES:
                    raise ValueError(f"evidence: {size:,} bytes unpacked, more than any target needs")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in names})
        except Exception as error:  # each kind of broken file fails in its own way
            told = str(error)
            raise ValueError(
                told if told.startswith("evidence") else f"evidence: it cannot be read ({told})"
            ) from error


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()
