"""NV indices: their handles, attributes, public areas, and the content of PIN indices.

Models: the types with the values that they allow.  Leaves out: which combinations of attributes make sense
(`sim.tpm.nv_rules`).
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, chapter 13.
"""
# ruff: noqa: N801, N815 - the specification's own spelling; `wire` makes an attrs field

from __future__ import annotations

from attrs import frozen

from sim.tpm.codec import Number, Sized, Structure, wire
from sim.tpm.constants import TPM_RC, TPMA_NV
from sim.tpm.wire.basic import TPM2B_DIGEST, TPMI_ALG_HASH, UINT32

__all__ = [
    "NV_INDEX_BYTES_MAX",
    "TPM2B_NV_PUBLIC",
    "TPMI_RH_NV_INDEX",
    "TPMS_NV_PIN_COUNTER_PARAMETERS",
    "TPMS_NV_PUBLIC",
]

NV_INDEX_BYTES_MAX = 2048
"""Limit of an index's content (property NV_INDEX_MAX)."""

_TYPE_BITS = 0xF0

TPMI_RH_NV_INDEX = Number("I", allowed=range(0x0100_0000, 0x0200_0000))
_TPMA_NV = Number("I", reserved=0xFFFFFFFF & ~(sum(TPMA_NV) | _TYPE_BITS))


@frozen(kw_only=True)
class TPMS_NV_PUBLIC(Structure):
    """The public area of an NV index."""

    nvIndex: int = wire(TPMI_RH_NV_INDEX)
    nameAlg: int = wire(TPMI_ALG_HASH)
    attributes: int = wire(_TPMA_NV)
    authPolicy: bytes = wire(TPM2B_DIGEST)
    dataSize: int = wire(Number("H", allowed=range(NV_INDEX_BYTES_MAX + 1), rc=TPM_RC.SIZE))


TPM2B_NV_PUBLIC = Sized(TPMS_NV_PUBLIC)


@frozen(kw_only=True)
class TPMS_NV_PIN_COUNTER_PARAMETERS(Structure):
    """The content of a PIN index: how often it was used (or missed), and how often it may be."""

    pinCount: int = wire(UINT32)
    pinLimit: int = wire(UINT32)
