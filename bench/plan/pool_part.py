"""The images of a pool that a source without labels learns from."""

from dataclasses import dataclass

from bench.plan.unit import Json


@dataclass(frozen=True)
class PoolPart:
    """Images of the pool, without label maps.

    Attributes:
        images_hash: content hash of the images; images: their number.
        undrawable: why the card's subset cannot be drawn from the pool, or None.
    """

    images_hash: str
    images: int
    undrawable: str | None = None

    def shaping(self) -> Json:
        """Return what affects results, as JSON values."""
        return {"images": self.images_hash} if self.undrawable is None else {"cannot be drawn": self.undrawable}
