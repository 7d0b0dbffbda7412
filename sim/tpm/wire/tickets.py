"""Tickets about digests, the hierarchies in which they are made, and the schemes of message authentication.

Models: the proof that the TPM itself hashed something (TPMT_TK_HASHCHECK).
Leaves out: how tickets are computed (`sim.tpm.sequences`, `sim.tpm.commands.signing`).
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, section 10.7.
"""
# ruff: noqa: N801 - the specification's own spelling; `wire` makes an attrs field

from __future__ import annotations

from attrs import frozen

from sim.tpm.codec import Number, Structure, wire
from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_RC, TPM_ST
from sim.tpm.wire.basic import TPM2B_DIGEST, TPMI_RH_HIERARCHY, TicketTag

__all__ = ["TPMI_ALG_MAC_SCHEME", "TPMI_RH_HIERARCHY", "TPMT_TK_HASHCHECK"]

TPMI_ALG_MAC_SCHEME = Number(
    "H", allowed=frozenset(HASH_BYTES) | {TPM_ALG.CMAC, TPM_ALG.NULL}, rc=TPM_RC.SYMMETRIC
)
"""The hash of an HMAC, or the MAC of a block cipher; NULL leaves it to the key."""


@frozen(kw_only=True)
class TPMT_TK_HASHCHECK(Structure):
    """Proof that this TPM computed a digest, and that the data did not begin like its own structures."""

    tag: int = wire(TicketTag(TPM_ST.HASHCHECK))
    hierarchy: int = wire(TPMI_RH_HIERARCHY)
    digest: bytes = wire(TPM2B_DIGEST)
