"""A seal on what a cache holds: a flipped bit, a cut, a torn write or another version, and it is no cache any more.

Every package may import this; it imports none of them.
"""

import hashlib

SEAL_BYTES = 32


def sealed(data: bytes, version: str) -> bytes:
    """The data behind a checksum over it and over `version`, which must change whenever the same data would mean another thing."""
    return _seal(data, version) + data


def unsealed(held: bytes, version: str) -> bytes:
    """What `sealed` was given for the same version.

    Raises:
        ValueError: a bit of it has changed since, or the version is another.
    """
    data = held[SEAL_BYTES:]
    if held[:SEAL_BYTES] != _seal(data, version):
        raise ValueError(f"damaged, or no cache of the version {version[:40]}")
    return data


def _seal(data: bytes, version: str) -> bytes:
    return hashlib.sha256(version.encode() + b"\n" + data).digest()
