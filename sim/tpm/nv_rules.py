"""Which NV indices may be defined: the rules about sizes and combinations of attributes, in the library's order.

Models: every check of NV_DefineSpace that looks at its parameters alone.
Leaves out: whether the index exists already, and whether there is room.
Sources: TPM 2.0 Library part 2, 13.4; part 3, 31.3; codes and their order measured on swtpm 0.7.1.
"""

from __future__ import annotations

from sim.tpm.constants import HASH_BYTES, TPM_NT, TPM_RC, TPM_RH, TPMA_NV
from sim.tpm.refusal import in_handle, in_parameter
from sim.tpm.wire import NV_BUFFER_BYTES_MAX, TPMS_NV_PUBLIC

__all__ = ["COUNTED_TYPES", "PIN_TYPES", "check_definition", "index_type"]

_AUTH = 1
_PUBLIC = 2
_READERS = TPMA_NV.OWNERREAD | TPMA_NV.PPREAD | TPMA_NV.AUTHREAD | TPMA_NV.POLICYREAD
_WRITERS = TPMA_NV.OWNERWRITE | TPMA_NV.PPWRITE | TPMA_NV.AUTHWRITE | TPMA_NV.POLICYWRITE
_NOT_YET = TPMA_NV.WRITTEN | TPMA_NV.READLOCKED | TPMA_NV.WRITELOCKED
_NOT_WITH_PIN = TPMA_NV.AUTHWRITE | TPMA_NV.GLOBALLOCK | TPMA_NV.WRITEDEFINE
_NUMBER_BYTES = 8

PIN_TYPES = frozenset({TPM_NT.PIN_FAIL.value, TPM_NT.PIN_PASS.value})
COUNTED_TYPES = frozenset({TPM_NT.COUNTER.value, TPM_NT.BITS.value, *PIN_TYPES})
"""Types whose content is a fixed number of bytes."""


def index_type(attributes: int) -> int:
    """Return the type (TPM_NT) in the attributes of an index."""
    return attributes >> 4 & 0xF


def check_definition(
    authority: int, auth: bytes, public: TPMS_NV_PUBLIC, *, platform_nv_enabled: bool
) -> None:
    """Refuse an index that may not be defined by `authority` (owner or platform)."""
    digest_bytes = HASH_BYTES[public.nameAlg]
    if public.authPolicy and len(public.authPolicy) != digest_bytes:
        raise in_parameter(TPM_RC.SIZE, _PUBLIC)
    if len(auth) > digest_bytes:
        raise in_parameter(TPM_RC.SIZE, _AUTH)
    by_platform = authority == TPM_RH.PLATFORM
    if by_platform and not platform_nv_enabled:
        raise in_handle(TPM_RC.HIERARCHY, 1)
    _check_type(public, digest_bytes)
    attributes = public.attributes
    _check_attributes(attributes)
    if by_platform != bool(attributes & TPMA_NV.PLATFORMCREATE):
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    if attributes & TPMA_NV.POLICY_DELETE and not by_platform:
        raise in_parameter(TPM_RC.ATTRIBUTES, _PUBLIC)
    if attributes & TPMA_NV.WRITEALL and public.dataSize > NV_BUFFER_BYTES_MAX:
        raise in_parameter(TPM_RC.SIZE, _PUBLIC)


def _check_type(public: TPMS_NV_PUBLIC, digest_bytes: int) -> None:
    kind, attributes = index_type(public.attributes), public.attributes
    if kind in COUNTED_TYPES:
        wanted = _NUMBER_BYTES
    elif kind == TPM_NT.EXTEND:
        wanted = digest_bytes
    elif kind == TPM_NT.ORDINARY:
        wanted = public.dataSize
    else:
        raise in_parameter(TPM_RC.ATTRIBUTES, _PUBLIC)
    if public.dataSize != wanted:
        raise in_parameter(TPM_RC.SIZE, _PUBLIC)
    wrong = (kind == TPM_NT.COUNTER and attributes & TPMA_NV.CLEAR_STCLEAR) or (
        kind == TPM_NT.PIN_FAIL and not attributes & TPMA_NV.NO_DA
    )
    if wrong or (kind in PIN_TYPES and attributes & _NOT_WITH_PIN):
        raise in_parameter(TPM_RC.ATTRIBUTES, _PUBLIC)


def _check_attributes(attributes: int) -> None:
    wrong = (
        attributes & _NOT_YET
        or not attributes & _READERS
        or not attributes & _WRITERS
        or (attributes & TPMA_NV.CLEAR_STCLEAR and attributes & TPMA_NV.WRITEDEFINE)
    )
    if wrong:
        raise in_parameter(TPM_RC.ATTRIBUTES, _PUBLIC)
