"""Hashes that say what a thing is, and seeds that no two purposes share."""

import hashlib
import json


def fingerprint(value: object) -> str:
    """sha256 of canonical JSON: sorted keys, no spaces, no NaN."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def derive_seed(*parts: str | int) -> int:
    """A seed in [0, 2^63) from named parts, so that no two purposes share a stream."""
    return int(fingerprint(list(parts))[:16], 16) >> 1
