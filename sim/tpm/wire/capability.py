"""What GetCapability answers.

Models: every capability group of the library.
Leaves out: vendor properties.
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, chapter 10.
"""
# ruff: noqa: N801, N815 - the specification's own spelling; `wire` makes an attrs field

from __future__ import annotations

from attrs import frozen

from sim.tpm.codec import Codec, Empty, FixedBytes, ListOf, Select, SizedBytes, Structure, wire
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_CAP
from sim.tpm.wire.basic import (
    PCR_SELECT_BYTES,
    TPMI_ALG_HASH_OR_NULL,
    TPML_PCR_SELECTION,
    UINT16,
    UINT32,
)

__all__ = [
    "TPMS_ALG_PROPERTY",
    "TPMS_CAPABILITY_DATA",
    "TPMS_TAGGED_PCR_SELECT",
    "TPMS_TAGGED_POLICY",
    "TPMS_TAGGED_PROPERTY",
    "TPMU_CAPABILITIES",
]


_CAP_BYTES_MAX = 1024
"""Limit of one answer of GetCapability, as the property MAX_CAP_BUFFER says."""


@frozen(kw_only=True)
class TPMS_ALG_PROPERTY(Structure):
    """An implemented algorithm and what it can be used for."""

    alg: int = wire(UINT16)
    algProperties: int = wire(UINT32)


@frozen(kw_only=True)
class TPMS_TAGGED_PROPERTY(Structure):
    """A property and its value."""

    property: int = wire(UINT32)
    value: int = wire(UINT32)


@frozen(kw_only=True)
class TPMS_TAGGED_PCR_SELECT(Structure):
    """A PCR property and the PCRs that have it."""

    tag: int = wire(UINT32)
    pcrSelect: bytes = wire(SizedBytes(PCR_SELECT_BYTES, code="B"))


@frozen(kw_only=True)
class TPMS_TAGGED_POLICY(Structure):
    """A hierarchy and its policy (hash algorithm and digest, NULL without one)."""

    handle: int = wire(UINT32)
    hashAlg: int = wire(TPMI_ALG_HASH_OR_NULL)
    digest: bytes | None = wire(
        Select("hashAlg", {**{alg: FixedBytes(n) for alg, n in HASH_BYTES.items()}, TPM_ALG.NULL: Empty()})
    )


def _list_of(inner: Codec | type[Structure], entry_bytes: int) -> ListOf:
    return ListOf(inner, (_CAP_BYTES_MAX - 8) // entry_bytes)


TPMU_CAPABILITIES: dict[int, Codec | type[Structure]] = {
    TPM_CAP.ALGS: _list_of(TPMS_ALG_PROPERTY, 6),
    TPM_CAP.HANDLES: _list_of(UINT32, 4),
    TPM_CAP.COMMANDS: _list_of(UINT32, 4),
    TPM_CAP.PP_COMMANDS: _list_of(UINT32, 4),
    TPM_CAP.AUDIT_COMMANDS: _list_of(UINT32, 4),
    TPM_CAP.PCRS: TPML_PCR_SELECTION,
    TPM_CAP.TPM_PROPERTIES: _list_of(TPMS_TAGGED_PROPERTY, 8),
    TPM_CAP.PCR_PROPERTIES: _list_of(TPMS_TAGGED_PCR_SELECT, 8),
    TPM_CAP.ECC_CURVES: _list_of(UINT16, 2),
    TPM_CAP.AUTH_POLICIES: _list_of(TPMS_TAGGED_POLICY, 70),
}


@frozen(kw_only=True)
class TPMS_CAPABILITY_DATA(Structure):
    """The answer of GetCapability."""

    capability: int = wire(UINT32)
    data: tuple[object, ...] = wire(Select("capability", TPMU_CAPABILITIES))
