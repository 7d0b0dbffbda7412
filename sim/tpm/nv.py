"""Non-volatile indices: what a manufacturer puts into the TPM and what software may read.

Models: ordinary indices with their public area, attributes, authorisation value and content.
Leaves out: defining and writing by command, counters, bit fields, extend and PIN indices, locks, policies.
Source: TPM 2.0 Library part 1, chapter 37; part 3, NV_Read.
"""

from __future__ import annotations

from attrs import frozen

from sim.errors import SimBug
from sim.tpm.constants import TPM_ALG, TPMA_NV
from sim.tpm.hashing import hash_bytes
from sim.tpm.wire import TPMS_NV_PUBLIC

__all__ = ["FACTORY_ATTRIBUTES", "NvIndex", "factory_index"]

NV_INDEX_BYTES_MAX = 2048
FACTORY_ATTRIBUTES = (
    TPMA_NV.PLATFORMCREATE
    | TPMA_NV.PPWRITE
    | TPMA_NV.PPREAD
    | TPMA_NV.OWNERREAD
    | TPMA_NV.AUTHREAD
    | TPMA_NV.NO_DA
    | TPMA_NV.WRITTEN
)
"""Attributes of a certificate that the manufacturer provisioned: everybody may read it."""


@frozen(kw_only=True)
class NvIndex:
    """A defined index; `content` is None until it was written."""

    public: TPMS_NV_PUBLIC
    content: bytes | None
    auth: bytes = b""

    @property
    def name(self) -> bytes:
        """The name: the name algorithm and the digest of the public area."""
        return self.public.nameAlg.to_bytes(2, "big") + hash_bytes(self.public.nameAlg, self.public.encode())


def factory_index(handle: int, content: bytes, attributes: int = FACTORY_ATTRIBUTES) -> NvIndex:
    """Make an index as a manufacturer provisions it."""
    if len(content) > NV_INDEX_BYTES_MAX:
        raise SimBug(f"NV index 0x{handle:08x}: {len(content)} bytes, at most {NV_INDEX_BYTES_MAX} fit")
    public = TPMS_NV_PUBLIC(
        nvIndex=handle,
        nameAlg=TPM_ALG.SHA256.value,
        attributes=int(attributes),
        authPolicy=b"",
        dataSize=len(content),
    )
    return NvIndex(public=public, content=content if attributes & TPMA_NV.WRITTEN else None)
