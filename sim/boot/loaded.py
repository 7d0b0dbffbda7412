"""A boot module in memory, and the digests that were measured of it.

Models: the file as stored, its content after unpacking, and its digest in each bank, made once.  Leaves out where in
memory it lies.  Sources: none, a design of ours.
"""

from __future__ import annotations

import hashlib

import attrs

from sim.tpm.constants import TPM_ALG

__all__ = ["Digests", "LoadedModule"]

Digests = dict[int, bytes]
"""Digest of one thing in each allocated bank, by algorithm id."""


@attrs.define(kw_only=True)
class LoadedModule:
    """A boot module in memory: the file as stored and what it unpacks to."""

    name: str
    data: bytes = attrs.field(repr=False)
    content: bytes = attrs.field(repr=False)
    digests: Digests = attrs.field(factory=dict, repr=False)
    """What was measured; empty before that."""

    def sha256(self) -> bytes:
        """Return the SHA-256 of the content, from the measurement if there was one."""
        known = self.digests.get(TPM_ALG.SHA256) if self.content else None
        return known if known is not None else hashlib.sha256(self.content).digest()
