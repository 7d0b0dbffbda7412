"""A digest that is handed over with the bytes it is of, and that counts for that very object alone.

Models: nothing; it saves a second hash where one part of a host has hashed an object and the next part is given the same
one.  Bytes cannot change, so the digest of the same object is the digest; any other object, an equal one too, is hashed.

Leaves out: digests that somebody claims.  Whoever makes a `KnownDigest` has computed it.

Sources: none, a design of ours.
"""

from __future__ import annotations

from hashlib import sha256

from attrs import frozen

__all__ = ["KnownDigest"]


@frozen(slots=False, eq=False, repr=False)
class KnownDigest:
    """The SHA-256 of `data`."""

    data: bytes
    digest: bytes

    def of(self, data: bytes) -> bytes:
        """Return the SHA-256 of `data`: the known one if it is this object, else that of its bytes."""
        return self.digest if data is self.data and type(data) is bytes else sha256(data).digest()
