"""Non-volatile indices: their content, how much of it fits, and what a start of the TPM does to them.

Models: an index with public area, authorisation value and content; the room for indices; orderly indices, whose
content lives in RAM between two orderly shutdowns; locks and contents that last until a start.
Leaves out: the commands (`sim.tpm.commands.nvram`).
Sources: TPM 2.0 Library part 1, chapter 37; part 3, chapters 9 and 31; every transition measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from attrs import frozen

from sim.core.facts import fact
from sim.errors import SimBug
from sim.tpm.constants import TPM_ALG, TPM_NT, TPM_RC, TPMA_NV
from sim.tpm.hashing import hash_bytes
from sim.tpm.nv_rules import index_type
from sim.tpm.refusal import RefusedError
from sim.tpm.wire import NV_INDEX_BYTES_MAX, TPMS_NV_PUBLIC

__all__ = ["FACTORY_ATTRIBUTES", "NvIndex", "check_room", "factory_index", "forget_counter", "started_index"]

_SWTPM = "swtpm 0.7.1, by filling it"
NV_BYTES_MAX = fact("tpm.nv_bytes_max", 131_072, unit="bytes", source=_SWTPM, kind="measured").value
INDEX_OVERHEAD_BYTES = fact(
    "tpm.nv_index_overhead_bytes", 168, unit="bytes", source=_SWTPM, kind="measured"
).value
ORDERLY_BYTES_MAX = fact("tpm.nv_orderly_bytes_max", 512, unit="bytes", source=_SWTPM, kind="measured").value
ORDERLY_OVERHEAD_BYTES = fact(
    "tpm.nv_orderly_overhead_bytes", 12, unit="bytes", source=_SWTPM, kind="measured"
).value
ORDERLY_COUNT = 0xFF
"""How far an orderly counter may run ahead of what is stored (property ORDERLY_COUNT)."""

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


def check_room(indices: Mapping[int, NvIndex], new: TPMS_NV_PUBLIC) -> None:
    """Refuse an index for which there is no room left."""
    every = [index.public for index in indices.values()] + [new]
    orderly = [public for public in every if public.attributes & TPMA_NV.ORDERLY]
    stored_bytes = sum(INDEX_OVERHEAD_BYTES + public.dataSize for public in every)
    orderly_bytes = sum(ORDERLY_OVERHEAD_BYTES + public.dataSize for public in orderly)
    if stored_bytes > NV_BYTES_MAX or (
        new.attributes & TPMA_NV.ORDERLY and orderly_bytes > ORDERLY_BYTES_MAX
    ):
        raise RefusedError(TPM_RC.NV_SPACE)


def forget_counter(index: NvIndex, highest: int) -> int:
    """Return the highest value that any counter ever had, when `index` is deleted."""
    if index_type(index.public.attributes) != TPM_NT.COUNTER or index.content is None:
        return highest
    return max(highest, int.from_bytes(index.content, "big"))


def started_index(index: NvIndex, *, orderly: bool) -> NvIndex:
    """Return what Startup(CLEAR) makes of an index; `orderly` tells whether a Shutdown came before."""
    public, content = index.public, index.content
    attributes = public.attributes & ~TPMA_NV.READLOCKED
    if not (attributes & TPMA_NV.WRITEDEFINE and attributes & TPMA_NV.WRITTEN):
        attributes &= ~TPMA_NV.WRITELOCKED
    is_lost = attributes & TPMA_NV.ORDERLY and not orderly
    if index_type(attributes) == TPM_NT.COUNTER:
        if is_lost and content is not None:
            content = (int.from_bytes(content, "big") | ORDERLY_COUNT).to_bytes(8, "big")
    elif is_lost or attributes & TPMA_NV.CLEAR_STCLEAR:
        attributes, content = attributes & ~TPMA_NV.WRITTEN, None
    return attrs.evolve(index, public=attrs.evolve(public, attributes=int(attributes)), content=content)
