"""Simple types, buffers, PCR selections, sessions and clocks.

Models: the pieces that all other structures are made of.
Leaves out: everything of one command group only.
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, chapters 8 to 11.
"""
# ruff: noqa: N801, N815, RUF009 - the specification's own spelling; `wire` makes an attrs field

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from attrs import frozen

from sim.tpm.codec import (
    FixedBytes,
    ListOf,
    Number,
    Remembered,
    Select,
    SizedBytes,
    Structure,
    WireError,
    wire,
)
from sim.tpm.constants import HASH_BYTES, PCR_COUNT, TPM_ALG, TPM_RC, TPM_RH, TPM_ST, TPMA_SESSION

__all__ = [
    "BANK_COUNT_MAX",
    "DIGEST_BYTES_MAX",
    "EVENT_BYTES_MAX",
    "NV_BUFFER_BYTES_MAX",
    "PCR_SELECT_BYTES",
    "SESSION_HANDLES",
    "TPM2B_AUTH",
    "TPM2B_DATA",
    "TPM2B_DIGEST",
    "TPM2B_ECC_PARAMETER",
    "TPM2B_EVENT",
    "TPM2B_MAX_BUFFER",
    "TPM2B_MAX_NV_BUFFER",
    "TPM2B_NAME",
    "TPM2B_PUBLIC_KEY_RSA",
    "TPM2B_SENSITIVE_DATA",
    "TPMI_ALG_HASH",
    "TPMI_ALG_HASH_OR_NULL",
    "TPMI_RH_HIERARCHY",
    "TPMI_YES_NO",
    "TPML_DIGEST",
    "TPML_DIGEST_VALUES",
    "TPML_PCR_SELECTION",
    "TPMS_AUTH_COMMAND",
    "TPMS_AUTH_RESPONSE",
    "TPMS_CLOCK_INFO",
    "TPMS_PCR_SELECTION",
    "TPMS_TIME_INFO",
    "TPMT_HA",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "TicketTag",
]

DIGEST_BYTES_MAX = 64
BANK_COUNT_MAX = 4
"""Banks in one list: as many as hashes are implemented."""
EVENT_BYTES_MAX = 1024
NV_BUFFER_BYTES_MAX = 1024
PCR_SELECT_BYTES = PCR_COUNT // 8
_RSA_BYTES_MAX = 384
_ECC_BYTES_MAX = 80  # of BN_P638, the largest registered curve
_NAME_BYTES_MAX = 2 + DIGEST_BYTES_MAX

UINT8 = Number("B")
UINT16 = Number("H")
UINT32 = Number("I")
UINT64 = Number("Q")

SESSION_HANDLES = frozenset(kind << 24 | slot for kind in (0x02, 0x03) for slot in range(64))
"""Handles that HMAC and policy sessions can have (property ACTIVE_SESSIONS_MAX)."""
_TPMI_SH_AUTH_SESSION = Number("I", allowed=SESSION_HANDLES | {TPM_RH.PW.value})
_HASHES = frozenset(HASH_BYTES)
_NULL = TPM_ALG.NULL.value

TPMI_YES_NO = Number("B", allowed=frozenset({0, 1}))
TPMI_ALG_HASH = Number("H", allowed=_HASHES, rc=TPM_RC.HASH)
TPMI_ALG_HASH_OR_NULL = Number("H", allowed=_HASHES | {_NULL}, rc=TPM_RC.HASH)

TPMI_RH_HIERARCHY = Number(
    "I", allowed=frozenset({TPM_RH.OWNER, TPM_RH.NULL, TPM_RH.ENDORSEMENT, TPM_RH.PLATFORM})
)

TPM2B_DIGEST = SizedBytes(DIGEST_BYTES_MAX)
TPM2B_AUTH = TPM2B_DIGEST
TPM2B_DATA = SizedBytes(_NAME_BYTES_MAX)
TPM2B_NAME = SizedBytes(_NAME_BYTES_MAX)
TPM2B_EVENT = SizedBytes(EVENT_BYTES_MAX)
TPM2B_MAX_BUFFER = SizedBytes(1024)
TPM2B_MAX_NV_BUFFER = SizedBytes(NV_BUFFER_BYTES_MAX)
TPM2B_SENSITIVE_DATA = SizedBytes(128)
TPM2B_ECC_PARAMETER = SizedBytes(_ECC_BYTES_MAX)
TPM2B_PUBLIC_KEY_RSA = SizedBytes(_RSA_BYTES_MAX)
TPML_DIGEST = ListOf(TPM2B_DIGEST, 8)


_RSP_COMMAND, _ST_NULL = 0x00C4, 0x8000
_TAGS = frozenset(TPM_ST) - {TPM_ST.ATTEST_NV_DIGEST} | {_RSP_COMMAND, _ST_NULL}
"""The structure tags that swtpm 0.7.1 knows."""


class TicketTag(Number):
    """The tag of a ticket: another kind's is refused with TAG, what is no tag at all with VALUE (measured)."""

    def __init__(self, *tags: TPM_ST) -> None:
        super().__init__("H", allowed=frozenset(tags), rc=TPM_RC.TAG)

    def check(self, value: int) -> None:
        """Raise `WireError` for a value that is no tag, or not one of this ticket."""
        if value not in _TAGS:
            raise WireError(TPM_RC.VALUE, f"0x{value:x} is no structure tag")
        super().check(value)


@frozen(kw_only=True, slots=False)  # several are made for each extend: this is the faster kind
class TPMT_HA(Structure):
    """A digest together with its hash algorithm."""

    hashAlg: int = wire(TPMI_ALG_HASH)
    digest: bytes = wire(Select("hashAlg", {alg: FixedBytes(size) for alg, size in HASH_BYTES.items()}))


TPML_DIGEST_VALUES = Remembered(ListOf(TPMT_HA, BANK_COUNT_MAX))


@frozen(kw_only=True)
class TPMS_PCR_SELECTION(Structure):
    """PCRs of one bank, as a bit map: PCR n is bit n % 8 of byte n // 8."""

    hash: int = wire(TPMI_ALG_HASH)
    pcrSelect: bytes = wire(
        SizedBytes(PCR_SELECT_BYTES, size_min=PCR_SELECT_BYTES, code="B", rc=TPM_RC.VALUE)
    )

    @classmethod
    def of(cls, hash_alg: int, pcrs: Iterable[int]) -> TPMS_PCR_SELECTION:
        """Select `pcrs` of the bank `hash_alg`."""
        bits = 0
        for pcr in pcrs:
            bits |= 1 << pcr
        return cls(hash=int(hash_alg), pcrSelect=bits.to_bytes(PCR_SELECT_BYTES, "little"))

    @property
    def pcrs(self) -> tuple[int, ...]:
        """The selected PCRs, in ascending order."""
        return _pcrs_of(self.pcrSelect)


@lru_cache(maxsize=1024)
def _pcrs_of(select: bytes) -> tuple[int, ...]:
    bits = int.from_bytes(select, "little")
    return tuple(pcr for pcr in range(PCR_COUNT) if bits >> pcr & 1)


TPML_PCR_SELECTION = ListOf(TPMS_PCR_SELECTION, BANK_COUNT_MAX)


@frozen(kw_only=True)
class TPMS_AUTH_COMMAND(Structure):
    """One session of a command: for a password session, `hmac` holds the password."""

    sessionHandle: int = wire(_TPMI_SH_AUTH_SESSION)
    nonce: bytes = wire(TPM2B_DIGEST)
    sessionAttributes: int = wire(Number("B", reserved=0xFF & ~sum(TPMA_SESSION)))
    hmac: bytes = wire(TPM2B_AUTH)


@frozen(kw_only=True)
class TPMS_AUTH_RESPONSE(Structure):
    """One session of a response."""

    nonce: bytes = wire(TPM2B_DIGEST)
    sessionAttributes: int = wire(UINT8)
    hmac: bytes = wire(TPM2B_AUTH)


@frozen(kw_only=True)
class TPMS_CLOCK_INFO(Structure):
    """Clock in ms, how often the TPM was reset and restarted, and whether the clock was never set back."""

    clock: int = wire(UINT64)
    resetCount: int = wire(UINT32)
    restartCount: int = wire(UINT32)
    safe: int = wire(TPMI_YES_NO)


@frozen(kw_only=True)
class TPMS_TIME_INFO(Structure):
    """Time since the last _TPM_Init in ms, and the clock."""

    time: int = wire(UINT64)
    clockInfo: TPMS_CLOCK_INFO = wire(TPMS_CLOCK_INFO)
