"""CMAC, the authentication code of a block cipher, over any number of pieces.

Models: the running block and what waits to be absorbed, so that a code can be kept and gone on with.
Leaves out: nothing of the scheme.
Source: SP 800-38B.
"""

from __future__ import annotations

from attrs import evolve, frozen

from sim.tpm.constants import TPM_ALG
from sim.tpm.crypto.kdf import xor_bytes
from sim.tpm.crypto.symmetric import BLOCK_BYTES, crypt

__all__ = ["CmacState"]

_REDUCTIONS = {8: 0x1B, 16: 0x87}


@frozen(kw_only=True)
class CmacState:
    """A code under way; `block` is the last block of the cipher (empty: zeros)."""

    algorithm: int
    key: bytes
    block: bytes = b""
    pending: bytes = b""
    hash_alg: int = TPM_ALG.NULL.value

    def update(self, data: bytes) -> CmacState:
        """Return the state after more data; the last block always waits, for the end treats it differently."""
        size = BLOCK_BYTES[self.algorithm]
        pending = self.pending + data
        whole = max(0, len(pending) - 1) // size * size
        if not whole:
            return evolve(self, pending=pending)
        return evolve(self, block=self._chain(pending[:whole]), pending=pending[whole:])

    def compact(self) -> CmacState:
        """Return this state: it never holds more than a block."""
        return self

    def digest(self) -> bytes:
        """Return the code of all data so far."""
        size = BLOCK_BYTES[self.algorithm]
        mask = _doubled(self._encrypt(bytes(size)))
        last = self.pending
        if len(last) < size:
            mask = _doubled(mask)
            last = (last + b"\x80").ljust(size, b"\0")
        return self._chain(xor_bytes(last, mask))

    def _chain(self, data: bytes) -> bytes:
        size = BLOCK_BYTES[self.algorithm]
        vector = self.block or bytes(size)
        encrypted, _ = crypt(self.algorithm, TPM_ALG.CBC.value, self.key, vector, data, decrypt=False)
        return encrypted[-size:]

    def _encrypt(self, block: bytes) -> bytes:
        return crypt(self.algorithm, TPM_ALG.ECB.value, self.key, b"", block, decrypt=False)[0]


def _doubled(block: bytes) -> bytes:
    """Multiply a block by x in the field of its size."""
    bits = len(block) * 8
    number = int.from_bytes(block, "big") << 1
    if number >> bits:
        number = number & (1 << bits) - 1 ^ _REDUCTIONS[len(block)]
    return number.to_bytes(len(block), "big")
