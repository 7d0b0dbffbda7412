"""Attestation structures and signatures.

Models: every kind of attestation, so that a verifier can tell a quote from the others.
Leaves out: any judgement about magic, type or content.
Source: TCG TPM 2.0 Library part 2 "Structures", revision 1.64, chapters 10 and 11.
"""
# ruff: noqa: N801, N815, RUF009 - the specification's own spelling; `wire` makes an attrs field

from __future__ import annotations

from attrs import frozen

from sim.tpm.codec import Empty, Number, Select, SizedBytes, Structure, variant, wire
from sim.tpm.constants import TPM_ALG, TPM_RC, TPM_ST
from sim.tpm.wire.basic import (
    TPM2B_DATA,
    TPM2B_DIGEST,
    TPM2B_ECC_PARAMETER,
    TPM2B_MAX_NV_BUFFER,
    TPM2B_NAME,
    TPM2B_PUBLIC_KEY_RSA,
    TPMI_ALG_HASH,
    TPMI_YES_NO,
    TPML_PCR_SELECTION,
    TPMS_CLOCK_INFO,
    TPMS_PCR_SELECTION,
    TPMS_TIME_INFO,
    TPMT_HA,
    UINT16,
    UINT32,
    UINT64,
)
from sim.tpm.wire.public import ECC_SIGNING, TPMI_ALG_SIG_SCHEME, TPMI_ALG_SIG_SCHEME_GIVEN

__all__ = [
    "TPM2B_ATTEST",
    "TPMI_ST_ATTEST",
    "TPMS_ATTEST",
    "TPMS_CERTIFY_INFO",
    "TPMS_COMMAND_AUDIT_INFO",
    "TPMS_CREATION_INFO",
    "TPMS_NV_CERTIFY_INFO",
    "TPMS_NV_DIGEST_CERTIFY_INFO",
    "TPMS_QUOTE_INFO",
    "TPMS_SESSION_AUDIT_INFO",
    "TPMS_SIGNATURE_ECC",
    "TPMS_SIGNATURE_RSA",
    "TPMS_TIME_ATTEST_INFO",
    "TPMT_SIGNATURE",
]

TPMI_ST_ATTEST = Number(
    "H", allowed=frozenset(v for v in TPM_ST if 0x8014 <= v <= 0x801C), rc=TPM_RC.SELECTOR
)


@frozen(kw_only=True)
class TPMS_SIGNATURE_ECC(Structure):
    """An ECDSA signature."""

    hash: int = wire(TPMI_ALG_HASH)
    signatureR: bytes = wire(TPM2B_ECC_PARAMETER)
    signatureS: bytes = wire(TPM2B_ECC_PARAMETER)


@frozen(kw_only=True)
class TPMS_SIGNATURE_RSA(Structure):
    """An RSA signature."""

    hash: int = wire(TPMI_ALG_HASH)
    sig: bytes = wire(TPM2B_PUBLIC_KEY_RSA)


@frozen(kw_only=True)
class TPMT_SIGNATURE(Structure):
    """A signature with its algorithm."""

    sigAlg: int = wire(TPMI_ALG_SIG_SCHEME)
    signature: TPMS_SIGNATURE_ECC | TPMS_SIGNATURE_RSA | TPMT_HA | None = wire(
        Select(
            "sigAlg",
            {
                **dict.fromkeys(ECC_SIGNING, TPMS_SIGNATURE_ECC),
                TPM_ALG.RSASSA: TPMS_SIGNATURE_RSA,
                TPM_ALG.RSAPSS: TPMS_SIGNATURE_RSA,
                TPM_ALG.HMAC: TPMT_HA,
                TPM_ALG.NULL: Empty(),
            },
        )
    )


GIVEN_SIGNATURE = variant(TPMT_SIGNATURE, sigAlg=TPMI_ALG_SIG_SCHEME_GIVEN)
"""A signature that a command brings."""


@frozen(kw_only=True)
class TPMS_QUOTE_INFO(Structure):
    """What a quote attests: the digest over the selected PCRs, in order."""

    pcrSelect: tuple[TPMS_PCR_SELECTION, ...] = wire(TPML_PCR_SELECTION)
    pcrDigest: bytes = wire(TPM2B_DIGEST)


@frozen(kw_only=True)
class TPMS_CERTIFY_INFO(Structure):
    """What a certification of an object attests."""

    name: bytes = wire(TPM2B_NAME)
    qualifiedName: bytes = wire(TPM2B_NAME)


@frozen(kw_only=True)
class TPMS_CREATION_INFO(Structure):
    """What a certification of an object's creation attests."""

    objectName: bytes = wire(TPM2B_NAME)
    creationHash: bytes = wire(TPM2B_DIGEST)


@frozen(kw_only=True)
class TPMS_TIME_ATTEST_INFO(Structure):
    """What an attestation of time attests."""

    time: TPMS_TIME_INFO = wire(TPMS_TIME_INFO)
    firmwareVersion: int = wire(UINT64)


@frozen(kw_only=True)
class TPMS_NV_CERTIFY_INFO(Structure):
    """What a certification of NV content attests."""

    indexName: bytes = wire(TPM2B_NAME)
    offset: int = wire(UINT16)
    nvContents: bytes = wire(TPM2B_MAX_NV_BUFFER)


@frozen(kw_only=True)
class TPMS_NV_DIGEST_CERTIFY_INFO(Structure):
    """What a certification of the digest of NV content attests."""

    indexName: bytes = wire(TPM2B_NAME)
    nvDigest: bytes = wire(TPM2B_DIGEST)


@frozen(kw_only=True)
class TPMS_SESSION_AUDIT_INFO(Structure):
    """What a session audit attests."""

    exclusiveSession: int = wire(TPMI_YES_NO)
    sessionDigest: bytes = wire(TPM2B_DIGEST)


@frozen(kw_only=True)
class TPMS_COMMAND_AUDIT_INFO(Structure):
    """What a command audit attests."""

    auditCounter: int = wire(UINT64)
    digestAlg: int = wire(UINT16)
    auditDigest: bytes = wire(TPM2B_DIGEST)
    commandDigest: bytes = wire(TPM2B_DIGEST)


@frozen(kw_only=True)
class TPMS_ATTEST(Structure):
    """What a TPM signs; a reader must check `magic` and `type`, which are not judged here."""

    magic: int = wire(UINT32)
    type: int = wire(TPMI_ST_ATTEST)
    qualifiedSigner: bytes = wire(TPM2B_NAME)
    extraData: bytes = wire(TPM2B_DATA)
    clockInfo: TPMS_CLOCK_INFO = wire(TPMS_CLOCK_INFO)
    firmwareVersion: int = wire(UINT64)
    attested: (
        TPMS_QUOTE_INFO
        | TPMS_CERTIFY_INFO
        | TPMS_CREATION_INFO
        | TPMS_TIME_ATTEST_INFO
        | TPMS_NV_CERTIFY_INFO
        | TPMS_NV_DIGEST_CERTIFY_INFO
        | TPMS_SESSION_AUDIT_INFO
        | TPMS_COMMAND_AUDIT_INFO
    ) = wire(
        Select(
            "type",
            {
                TPM_ST.ATTEST_QUOTE: TPMS_QUOTE_INFO,
                TPM_ST.ATTEST_CERTIFY: TPMS_CERTIFY_INFO,
                TPM_ST.ATTEST_CREATION: TPMS_CREATION_INFO,
                TPM_ST.ATTEST_TIME: TPMS_TIME_ATTEST_INFO,
                TPM_ST.ATTEST_NV: TPMS_NV_CERTIFY_INFO,
                TPM_ST.ATTEST_NV_DIGEST: TPMS_NV_DIGEST_CERTIFY_INFO,
                TPM_ST.ATTEST_SESSION_AUDIT: TPMS_SESSION_AUDIT_INFO,
                TPM_ST.ATTEST_COMMAND_AUDIT: TPMS_COMMAND_AUDIT_INFO,
            },
        )
    )


TPM2B_ATTEST = SizedBytes(2048)
"""The attested structure as its signed bytes (decode those with `TPMS_ATTEST`)."""
