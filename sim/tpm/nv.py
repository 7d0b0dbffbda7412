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

__all__ = [
    "FACTORY_ATTRIBUTES",
    "NvIndex",
    "check_room",
    "counter_count",
    "counters_available",
    "factory_index",
    "forget_counter",
    "persistent_available",
    "started_index",
]

_SWTPM = "swtpm 0.7.1, by filling it"


def _measured(name: str, value: int, unit: str) -> int:
    return fact(f"tpm.nv_{name}", value, unit=unit, source=_SWTPM, kind="measured").value


PERSISTENT_BYTES = _measured("persistent_bytes", 2608, "bytes")
"""Room that each persistent object takes, whatever its type."""
PERSISTENT_MIN = 7
INDEX_OVERHEAD_BYTES = _measured("index_overhead_bytes", 152, "bytes")
COUNTER_BYTES = INDEX_OVERHEAD_BYTES + 8
COUNTERS_MIN = _measured("counters_min", 8, "counters")
NV_BYTES_MAX = (
    _measured("shared_bytes", 151_652, "bytes")
    + PERSISTENT_MIN * PERSISTENT_BYTES
    + COUNTERS_MIN * COUNTER_BYTES
)
ORDERLY_BYTES_MAX = _measured("orderly_bytes_max", 512, "bytes")
ORDERLY_OVERHEAD_BYTES = _measured("orderly_overhead_bytes", 12, "bytes")
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


def check_room(indices: Mapping[int, NvIndex], persistent: int, new: TPMS_NV_PUBLIC) -> None:
    """Refuse an index for which there is no room beside the others and `persistent` objects."""
    reserved = max(0, PERSISTENT_MIN - persistent) * PERSISTENT_BYTES
    if index_type(new.attributes) != TPM_NT.COUNTER:
        reserved += _counter_reserve(indices)
    if INDEX_OVERHEAD_BYTES + new.dataSize > _free_bytes(indices, persistent) - reserved:
        raise RefusedError(TPM_RC.NV_SPACE)
    if new.attributes & TPMA_NV.ORDERLY and ORDERLY_OVERHEAD_BYTES + new.dataSize > _free_orderly_bytes(
        indices
    ):
        raise RefusedError(TPM_RC.NV_SPACE)


def persistent_available(indices: Mapping[int, NvIndex], persistent: int) -> int:
    """Return how many more objects can be made persistent."""
    return max(0, _free_bytes(indices, persistent) - _counter_reserve(indices)) // PERSISTENT_BYTES


def counters_available(indices: Mapping[int, NvIndex], persistent: int) -> int:
    """Return how many more counters can be defined, stored or orderly."""
    reserved = max(0, PERSISTENT_MIN - persistent) * PERSISTENT_BYTES
    stored = max(0, _free_bytes(indices, persistent) - reserved) // COUNTER_BYTES
    return min(stored, _free_orderly_bytes(indices) // (ORDERLY_OVERHEAD_BYTES + 8))


def _free_bytes(indices: Mapping[int, NvIndex], persistent: int) -> int:
    taken = sum(INDEX_OVERHEAD_BYTES + index.public.dataSize for index in indices.values())
    return NV_BYTES_MAX - taken - persistent * PERSISTENT_BYTES


def _free_orderly_bytes(indices: Mapping[int, NvIndex]) -> int:
    orderly = (index.public for index in indices.values() if index.public.attributes & TPMA_NV.ORDERLY)
    return ORDERLY_BYTES_MAX - sum(ORDERLY_OVERHEAD_BYTES + public.dataSize for public in orderly)


def _counter_reserve(indices: Mapping[int, NvIndex]) -> int:
    return max(0, COUNTERS_MIN - counter_count(indices)) * COUNTER_BYTES


def counter_count(indices: Mapping[int, NvIndex]) -> int:
    """Return how many counters are defined."""
    return sum(index_type(index.public.attributes) == TPM_NT.COUNTER for index in indices.values())


def forget_counter(index: NvIndex, highest: int) -> int:
    """Return the highest value that any counter ever had, when `index` is deleted."""
    if index_type(index.public.attributes) != TPM_NT.COUNTER or index.content is None:
        return highest
    return max(highest, int.from_bytes(index.content, "big"))


def started_index(index: NvIndex, *, orderly: bool, restart: bool) -> NvIndex:
    """Return what Startup(CLEAR) makes of an index, after any Shutdown (`orderly`) or Shutdown(STATE) (`restart`)."""
    public, content = index.public, index.content
    attributes = public.attributes & ~TPMA_NV.READLOCKED
    in_memory = bool(attributes & TPMA_NV.ORDERLY)
    if index_type(attributes) == TPM_NT.COUNTER:
        if in_memory and not orderly and content is not None:
            content = (int.from_bytes(content, "big") | ORDERLY_COUNT).to_bytes(8, "big")
    elif (in_memory and not restart) or attributes & TPMA_NV.CLEAR_STCLEAR:
        attributes, content = attributes & ~TPMA_NV.WRITTEN, None
    if not (attributes & TPMA_NV.WRITEDEFINE and attributes & TPMA_NV.WRITTEN):
        attributes &= ~TPMA_NV.WRITELOCKED
    return attrs.evolve(index, public=attrs.evolve(public, attributes=int(attributes)), content=content)
