"""Fingerprints of identities, and seeds derived for each purpose."""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel


def fingerprint(value: object) -> str:
    """Return the sha256 of canonical JSON: sorted keys, no spaces, no NaN."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


class Identified(BaseModel):
    """A model with an identity, whose hash is cached: 20,000 units may need it."""

    def identity(self) -> dict[str, Any]:
        """Return the fields that affect a result, as JSON values."""
        raise NotImplementedError

    @functools.cached_property
    def identity_hash(self) -> str:
        """Return the fingerprint of the identity."""
        return fingerprint(self.identity())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the model without its cached properties."""
        copy = super().model_copy(update=update, deep=deep)
        for name in copy.__dict__.keys() - type(copy).model_fields.keys():
            del copy.__dict__[name]
        return copy


def derive_seed(*parts: str | int) -> int:
    """Derive a seed in [0, 2^63) from named parts, so that no two purposes share a random stream."""
    return int(fingerprint(list(parts))[:16], 16) >> 1
