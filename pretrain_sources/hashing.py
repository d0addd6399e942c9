"""Hashes that say what a thing is, and seeds that no two purposes share."""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel


def fingerprint(value: object) -> str:
    """sha256 of canonical JSON: sorted keys, no spaces, no NaN."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


class Identified(BaseModel):
    """A model with an identity, whose hash is worked out once: 20,000 units may ask for it."""

    def identity(self) -> dict[str, Any]:
        """What of it shapes a result; JSON values."""
        raise NotImplementedError

    @functools.cached_property
    def identity_hash(self) -> str:
        """Fingerprint of the identity."""
        return fingerprint(self.identity())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy that does not inherit what was worked out of the fields before they were changed."""
        made = super().model_copy(update=update, deep=deep)
        for name in made.__dict__.keys() - type(made).model_fields.keys():
            del made.__dict__[name]
        return made


def derive_seed(*parts: str | int) -> int:
    """A seed in [0, 2^63) from named parts, so that no two purposes share a stream."""
    return int(fingerprint(list(parts))[:16], 16) >> 1
