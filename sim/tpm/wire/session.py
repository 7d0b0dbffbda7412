"""What sessions and policies take and give: symmetric definitions, operands, tickets, lists of commands.

Models: the structures of StartAuthSession and of the policy, audit and dictionary-attack commands.
Leaves out: what the device implements of them.
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, chapters 10 and 11.
"""
# ruff: noqa: N801, N815 - the specification's own spelling; `wire` makes an attrs field

from __future__ import annotations

from attrs import frozen

from sim.tpm.codec import Empty, ListOf, Number, Select, SizedBytes, Structure, wire
from sim.tpm.constants import TPM_ALG, TPM_EO, TPM_RC, TPM_RH, TPM_SE, TPM_ST
from sim.tpm.wire.basic import DIGEST_BYTES_MAX, TPM2B_DIGEST, TPMI_ALG_HASH, UINT32, TicketTag
from sim.tpm.wire.public import TPMI_ALG_SYM_MODE

__all__ = [
    "TPM2B_NONCE",
    "TPM2B_OPERAND",
    "TPM2B_TIMEOUT",
    "TPMA_LOCALITY",
    "TPML_CC",
    "TPML_OR_DIGESTS",
    "TPMT_SYM_DEF",
    "TPMT_TK_AUTH",
    "TPMT_TK_VERIFIED",
    "TPM_EO_CODEC",
    "TPM_SE_CODEC",
]

_COMMANDS_MAX = 254  # as many as one answer of GetCapability lists
_TIMEOUT_BYTES_MAX = 8

TPM2B_NONCE = TPM2B_DIGEST
TPM2B_OPERAND = TPM2B_DIGEST
TPM2B_TIMEOUT = SizedBytes(_TIMEOUT_BYTES_MAX)
TPML_CC = ListOf(UINT32, _COMMANDS_MAX)
TPML_OR_DIGESTS = ListOf(TPM2B_DIGEST, 8)
TPMA_LOCALITY = Number("B")
TPM_SE_CODEC = Number("B", allowed=frozenset(TPM_SE))
TPM_EO_CODEC = Number("H", allowed=frozenset(TPM_EO))
_HIERARCHY = frozenset({TPM_RH.OWNER, TPM_RH.NULL, TPM_RH.ENDORSEMENT, TPM_RH.PLATFORM})
_AES_BITS = Number("H", allowed=frozenset({128, 256}))
_CAMELLIA_BITS = Number("H", allowed=frozenset({128, 256}))
_TDES_BITS = Number("H", allowed=frozenset({128, 192}))
_TPMI_ALG_SYM = Number(
    "H",
    allowed=frozenset({TPM_ALG.TDES, TPM_ALG.AES, TPM_ALG.CAMELLIA, TPM_ALG.XOR, TPM_ALG.NULL}),
    rc=TPM_RC.SYMMETRIC,
)


@frozen(kw_only=True)
class TPMT_SYM_DEF(Structure):
    """How a session encrypts parameters; for XOR, `keyBits` is a hash algorithm."""

    algorithm: int = wire(_TPMI_ALG_SYM)
    keyBits: int | None = wire(
        Select(
            "algorithm",
            {
                TPM_ALG.TDES: _TDES_BITS,
                TPM_ALG.AES: _AES_BITS,
                TPM_ALG.CAMELLIA: _CAMELLIA_BITS,
                TPM_ALG.XOR: TPMI_ALG_HASH,
                TPM_ALG.NULL: Empty(),
            },
        )
    )
    mode: int | None = wire(
        Select(
            "algorithm",
            {
                TPM_ALG.TDES: TPMI_ALG_SYM_MODE,
                TPM_ALG.AES: TPMI_ALG_SYM_MODE,
                TPM_ALG.CAMELLIA: TPMI_ALG_SYM_MODE,
                TPM_ALG.XOR: Empty(),
                TPM_ALG.NULL: Empty(),
            },
        )
    )


@frozen(kw_only=True)
class TPMT_TK_AUTH(Structure):
    """Proof that this TPM saw an authorisation by signature or secret, until a time."""

    tag: int = wire(TicketTag(TPM_ST.AUTH_SIGNED, TPM_ST.AUTH_SECRET))
    hierarchy: int = wire(Number("I", allowed=_HIERARCHY))
    digest: bytes = wire(TPM2B_DIGEST)


@frozen(kw_only=True)
class TPMT_TK_VERIFIED(Structure):
    """Proof that this TPM verified a signature over a digest."""

    tag: int = wire(TicketTag(TPM_ST.VERIFIED))
    hierarchy: int = wire(Number("I", allowed=_HIERARCHY))
    digest: bytes = wire(TPM2B_DIGEST)


assert TPM2B_NONCE.size_max == DIGEST_BYTES_MAX
